//! The packages' candidates at one moment, kept until they are old.

use crate::apt::{Apt, Package, Source};
use crate::cache::Cache;
use crate::suites::PassedOver;
use crate::toolstack::{self, Toolstack};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The suite of the kernels, of the guests' userland and, if it can be had there, of Xen.
pub(crate) const SUITE: &str = "trixie";
/// Where Xen comes from: the first of these suites whose mirror has all that is needed. A source
/// package goes missing at times, when its index is ahead of the mirror's files.
pub(crate) const XEN_SUITES: [&str; 2] = [SUITE, "bookworm"];
/// How long candidates are good for.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The Debian root file system of a guest.
const ROOTFS: [&str; 6] = ["base-files", "bash", "coreutils", "e2fsprogs", "mount", "sed"];

/// A package that is built from U-Boot's source.
const UBOOT: &str = "u-boot-qemu";

/// The candidates at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Resolution {
    /// Seconds since 1970.
    pub(crate) resolved_at: u64,
    pub(crate) suite: String,
    /// The packages and suites that were asked for; other ones want another resolution.
    wanted: String,
    pub(crate) rootfs: Vec<Package>,
    pub(crate) stock_kernel: Package,
    pub(crate) linux_source: Package,
    /// None if the suite's index hasn't it.
    pub(crate) uboot: Option<Source>,
    /// Xen of the suites that were looked at.
    pub(crate) toolstacks: Vec<Toolstack>,
    /// The suites whose Xen could not be had.
    pub(crate) passed_over: Vec<PassedOver>,
    /// The archives of security updates that could not be reached: `URI SUITE COMPONENT`.
    pub(crate) without_security: Vec<String>,
}

impl Resolution {
    /// The one in the cache, if it is of what is wanted today.
    pub(crate) fn kept(cache: &Cache) -> Option<Self> {
        let kept: Self = serde_json::from_slice(&fs::read(file(cache)).ok()?).ok()?;
        (kept.suite == SUITE && kept.wanted == wanted()).then_some(kept)
    }

    /// The suite's candidates, as its lists have them.
    pub(crate) fn candidates(apt: &Apt) -> Result<Self> {
        let stock_kernel = apt.dependency("linux-image-cloud-arm64", "linux-image-")?;
        let linux_source = apt.dependency("linux-source", "linux-source-")?;
        let uboot = apt.field(UBOOT, "Version").and_then(|version| apt.source("u-boot", &version));
        Ok(Self {
            resolved_at: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            suite: SUITE.to_owned(),
            wanted: wanted(),
            rootfs: apt.closure(&ROOTFS)?,
            stock_kernel: apt.candidate(&stock_kernel)?,
            linux_source: apt.candidate(&linux_source)?,
            uboot: uboot.ok(),
            toolstacks: Vec::new(),
            passed_over: Vec::new(),
            without_security: Vec::new(),
        })
    }

    pub(crate) fn save(&self, cache: &Cache) -> Result<()> {
        Ok(fs::write(file(cache), serde_json::to_vec_pretty(self)?)?)
    }

    pub(crate) fn is_old(&self) -> bool {
        is_old(self.resolved_at)
    }

    /// Says what it lacks.
    pub(crate) fn announce(&self) {
        for archive in &self.without_security {
            eprintln!("  the security updates of {archive} can't be reached, and aren't used");
        }
    }
}

/// Whether candidates of that time, in seconds since 1970, are to be looked for again.
pub(crate) fn is_old(resolved_at: u64) -> bool {
    let at = UNIX_EPOCH + Duration::from_secs(resolved_at);
    SystemTime::now().duration_since(at).unwrap_or_default() > MAX_AGE
}

fn file(cache: &Cache) -> PathBuf {
    cache.path("resolution.json")
}

fn wanted() -> String {
    [&toolstack::DOM0[..], &ROOTFS, &XEN_SUITES, &[UBOOT, "security"]].concat().join(" ")
}

#[cfg(test)]
impl Resolution {
    /// Of these toolstacks, and one package for all the rest.
    pub(crate) fn of(package: &Package, toolstacks: Vec<Toolstack>) -> Self {
        Self {
            resolved_at: 0,
            suite: SUITE.to_owned(),
            wanted: wanted(),
            rootfs: vec![],
            stock_kernel: package.clone(),
            linux_source: package.clone(),
            uboot: None,
            toolstacks,
            passed_over: vec![],
            without_security: vec![],
        }
    }
}
