//! Which Debian packages the testbed is made of: resolved once, kept, and recorded.

use crate::apt::{self, Apt, Package, Source};
use crate::cache::{Artefact, Cache, Recipe};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The suite everything in the domains comes from.
pub(crate) const SUITE: &str = "trixie";
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// xl, xenstored and their libraries (by the toolstack's own dependencies), and what cases use.
const DOM0: [&str; 3] = ["xen-system-arm64", "busybox-static", "e2fsprogs"];
/// The Debian root file system of a guest.
const ROOTFS: [&str; 6] = ["base-files", "bash", "coreutils", "e2fsprogs", "mount", "sed"];

/// The candidates of the suite at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Resolution {
    /// Seconds since 1970.
    pub(crate) resolved_at: u64,
    pub(crate) suite: String,
    /// The packages that were asked for; other ones want another resolution.
    wanted: String,
    pub(crate) dom0: Vec<Package>,
    pub(crate) rootfs: Vec<Package>,
    pub(crate) hypervisor: Package,
    pub(crate) xen_source: Source,
    pub(crate) stock_kernel: Package,
    pub(crate) linux_source: Package,
}

/// The suite's packages, on this machine.
pub(crate) struct Debian {
    apt: Apt,
    debs: PathBuf,
    pub(crate) resolution: Resolution,
}

impl Debian {
    /// The resolution in the cache, or a new one if there is none, it is old, or `update` asks.
    pub(crate) fn resolve(cache: &Cache, update: bool) -> Result<Self> {
        let debs = cache.path("debs");
        let file = cache.path("resolution.json");
        let kept: Option<Resolution> = fs::read(&file)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .filter(|kept: &Resolution| kept.suite == SUITE && kept.wanted == wanted());
        let apt = |sources: &[String]| Apt::new(cache.path("apt"), debs.clone(), "arm64", sources);
        if let Some(resolution) = kept.as_ref().filter(|kept| !update && kept.age() < MAX_AGE) {
            let sources =
                apt::mirror().map(|mirror| vec![source_line(&mirror)]).unwrap_or_default();
            return Ok(Self { apt: apt(&sources)?, debs, resolution: resolution.clone() });
        }
        let fresh = apt::mirror().and_then(|mirror| {
            let apt = apt(&[source_line(&mirror)])?;
            let log = cache.log("resolve")?;
            let resolution = cache.timed("resolve", Duration::from_secs(10), || {
                apt.update(&log)?;
                candidates(&apt)
            })?;
            Ok((apt, resolution))
        });
        match (fresh, kept) {
            (Ok((apt, resolution)), _) => {
                fs::write(&file, serde_json::to_vec_pretty(&resolution)?)?;
                Ok(Self { apt, debs, resolution })
            }
            (Err(error), Some(resolution)) => {
                eprintln!(
                    "  the candidates of {SUITE} cannot be resolved now; using the last known ones\n  ({error:#})"
                );
                Ok(Self { apt: apt(&[])?, debs, resolution })
            }
            (Err(error), None) => {
                Err(error.context(format!("resolving the candidates of {SUITE}")))
            }
        }
    }

    /// Downloads what is not in the cache yet.
    pub(crate) fn download(&self, cache: &Cache) -> Result<()> {
        let Resolution { dom0, rootfs, hypervisor, stock_kernel, linux_source, xen_source, .. } =
            &self.resolution;
        let mut packages: Vec<Package> = dom0.iter().chain(rootfs).cloned().collect();
        packages.extend([hypervisor, stock_kernel, linux_source].map(Clone::clone));
        packages.sort_by(|a, b| a.file.cmp(&b.file));
        packages.dedup();
        let present = packages.iter().all(|package| self.debs.join(&package.file).exists())
            && xen_source.files.iter().all(|(file, _)| self.debs.join(file).exists());
        if present {
            return Ok(());
        }
        let log = cache.log("download")?;
        cache.timed("download", Duration::from_secs(60), || {
            self.apt.download(&packages, &log)?;
            self.apt.download_source(xen_source, &log)
        })
    }

    /// A downloaded file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.debs.join(name)
    }

    /// The packages' content, unpacked.
    pub(crate) fn tree(
        &self,
        cache: &Cache,
        name: &'static str,
        packages: &[Package],
    ) -> Result<Artefact> {
        let recipe = packages
            .iter()
            .fold(Recipe::new(name, 8), |recipe, package| recipe.part("package", &package.file));
        cache.get(recipe, |shop| apt::unpack(&self.debs, packages, shop.out, shop.log))
    }

    /// The release of the stock kernel, as in `uname -r`.
    pub(crate) fn stock_release(&self) -> &str {
        let name = &self.resolution.stock_kernel.name;
        name.strip_prefix("linux-image-").unwrap_or(name)
    }
}

impl Resolution {
    fn age(&self) -> Duration {
        let at = UNIX_EPOCH + Duration::from_secs(self.resolved_at);
        SystemTime::now().duration_since(at).unwrap_or_default()
    }
}

fn wanted() -> String {
    [&DOM0[..], &ROOTFS].concat().join(" ")
}

fn source_line(mirror: &str) -> String {
    format!("{mirror} {SUITE} main")
}

fn candidates(apt: &Apt) -> Result<Resolution> {
    let hypervisor = apt.candidate(&dependency(apt, "xen-system-arm64", "xen-hypervisor-4")?)?;
    // A rebuild of the binary alone has a version of its own; then `Source` names the source's.
    let source = apt.field(&hypervisor.name, "Source")?;
    let version = match source.split_once(" (") {
        Some((_, version)) => version.trim_end_matches(')').to_owned(),
        None => hypervisor.version.clone(),
    };
    Ok(Resolution {
        resolved_at: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        suite: SUITE.to_owned(),
        wanted: wanted(),
        dom0: apt.closure(&DOM0)?,
        rootfs: apt.closure(&ROOTFS)?,
        xen_source: apt.source("xen", &version)?,
        hypervisor,
        stock_kernel: apt.candidate(&dependency(
            apt,
            "linux-image-cloud-arm64",
            "linux-image-",
        )?)?,
        linux_source: apt.candidate(&dependency(apt, "linux-source", "linux-source-")?)?,
    })
}

/// The name of the dependency of a package that begins with `prefix`.
fn dependency(apt: &Apt, package: &str, prefix: &str) -> Result<String> {
    let depends = apt.field(package, "Depends")?;
    depends
        .split(',')
        .filter_map(|dependency| dependency.split_whitespace().next())
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .with_context(|| format!("{package} depends on no {prefix}…"))
}
