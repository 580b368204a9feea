//! Xen of one suite: the userland of dom0 and the hypervisor, which are of one series.

use crate::apt::{Apt, Package, Source};
use crate::log::Log;
use crate::series::Series;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// xl, xenstored and their libraries (by the toolstack's own dependencies), and what cases use.
pub(crate) const DOM0: [&str; 5] =
    ["xen-system-arm64", "busybox-static", "e2fsprogs", "dmsetup", "attr"];

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Toolstack {
    pub(crate) suite: String,
    pub(crate) dom0: Vec<Package>,
    pub(crate) hypervisor: Package,
    /// What the hypervisor was built from; nothing if the suite's index hasn't it.
    pub(crate) source: Option<Source>,
}

impl Toolstack {
    /// The suite's candidates.
    pub(crate) fn resolve(apt: &Apt, suite: &str) -> Result<Self> {
        let hypervisor = apt.candidate(&apt.dependency("xen-system-arm64", "xen-hypervisor-4")?)?;
        // A rebuild of the binary alone has a version of its own; then `Source` names the source's.
        let source = apt.field(&hypervisor.name, "Source")?;
        let version = match source.split_once(" (") {
            Some((_, version)) => version.trim_end_matches(')'),
            None => &hypervisor.version,
        };
        Ok(Self {
            suite: suite.to_owned(),
            dom0: apt.closure(&DOM0)?,
            source: apt.source("xen", version).ok(),
            hypervisor,
        })
    }

    pub(crate) fn version(&self) -> &str {
        &self.hypervisor.version
    }

    pub(crate) fn series(&self) -> Result<Series> {
        Series::of_version(self.version())
    }

    pub(crate) fn source(&self) -> Result<&Source> {
        self.source.as_ref().with_context(|| {
            format!("its index names no source of {} {}", self.hypervisor.name, self.version())
        })
    }

    pub(crate) fn packages(&self) -> Vec<Package> {
        let mut packages = self.dom0.clone();
        // Most often, dom0's userland depends on it.
        if !packages.contains(&self.hypervisor) {
            packages.push(self.hypervisor.clone());
        }
        packages
    }

    /// Downloads what is not there yet.
    pub(crate) fn download(&self, apt: &Apt, with_source: bool, log: &Log) -> Result<()> {
        // The smaller part first: it is the one that some mirrors lack.
        if with_source {
            apt.download_source(self.source()?, log)?;
        }
        apt.download(&self.packages(), log)
    }
}
