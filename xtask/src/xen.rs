//! Xen for arm64: built with the IOREQ server, and Debian's own build.

use crate::apt::{Package, Source};
use crate::cache::{Artefact, Cache, Recipe};
use crate::debian::Debian;
use crate::series::Series;
use crate::toolstack::Toolstack;
use crate::xen_tree::XenTree;
use crate::{apt, cross, paths, source};
use anyhow::{Context as _, Result, bail};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Raise it when the steps below change what they make.
const REVISION: &str = "1";

/// What the hypervisor is built from.
pub(crate) enum Sources<'a> {
    Debian(&'a Source),
    Own(&'a XenTree),
}

/// A hypervisor in the cache that was built before, from whatever source.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) artefact: Artefact,
    pub(crate) version: String,
}

impl Kept {
    /// The newest one of this series that was configured as the testbed wants it, if there is any.
    pub(crate) fn of_series(cache: &Cache, series: Series) -> Result<Option<Self>> {
        let wanted = fs::read_to_string(paths::testbed("xen.config"))?;
        let usable = |artefact: Artefact| {
            let config = artefact.read("config").ok()?;
            let version = version(&config)?;
            let has = |line: &str| config.lines().any(|found| found == line);
            let configured = wanted.lines().filter(|line| line.starts_with("CONFIG_")).all(has);
            let fits = Series::of_version(&version).is_ok_and(|found| found == series);
            (configured && fits && artefact.path("xen").exists())
                .then_some(Self { artefact, version })
        };
        Ok(cache.kept("xen")?.into_iter().find_map(usable))
    }
}

/// The version that a configuration of Xen says it is of: `# Xen/arm 4.20.4 Configuration`.
fn version(config: &str) -> Option<String> {
    let title = |line: &str| {
        let line = line.strip_prefix("# Xen/")?.strip_suffix(" Configuration")?;
        line.split_once(' ').map(|(_, version)| version.to_owned())
    };
    config.lines().find_map(title)
}

impl<'a> Sources<'a> {
    pub(crate) fn choose(toolstack: &'a Toolstack, tree: Option<&'a XenTree>) -> Result<Self> {
        match tree {
            Some(tree) => Ok(Self::Own(tree)),
            None => toolstack.source().map(Self::Debian),
        }
    }

    /// The version, or the state of a tree.
    fn state(&self) -> &str {
        match self {
            Self::Debian(source) => &source.version,
            Self::Own(tree) => &tree.state,
        }
    }
}

impl fmt::Display for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian(source) => source.version.fmt(f),
            Self::Own(tree) => write!(f, "{}, state {} of {tree}", tree.series, tree.state),
        }
    }
}

/// The version of a built hypervisor.
pub(crate) fn built_version(xen: &Artefact) -> Result<String> {
    version(&xen.read("config")?).context("Xen's configuration names no version")
}

/// Xen with `CONFIG_IOREQ_SERVER`; the artefact holds `xen` and `config`.
pub(crate) fn with_ioreq(
    cache: &Cache,
    debian: &Debian<'_>,
    sources: &Sources<'_>,
) -> Result<Artefact> {
    let config = fs::read(paths::testbed("xen.config"))?;
    let recipe = Recipe::new("xen", 45)
        .part("revision", REVISION)
        .part("source", sources.state())
        .part("compiler", cross::gcc_version()?)
        .part("config", &config);
    cache.get(recipe, |shop| {
        let tree = shop.work.join("xen");
        if !shop.work.join("unpacked").exists() {
            let _ = fs::remove_dir_all(&tree);
            match sources {
                Sources::Debian(package) => source::unpack(shop, debian, package, &tree)?,
                Sources::Own(own) => own.copy(&tree, shop.log)?,
            }
            fs::write(shop.work.join("unpacked"), "")?;
        }
        fs::write(tree.join("xen/.config"), &config)?;
        shop.log.run(make(&tree).arg("olddefconfig"))?;
        let result = fs::read_to_string(tree.join("xen/.config"))?;
        if !result.lines().any(|line| line == "CONFIG_IOREQ_SERVER=y") {
            bail!("Xen's configuration lost CONFIG_IOREQ_SERVER");
        }
        shop.log.run(make(&tree).arg(paths::jobs()))?;
        fs::copy(tree.join("xen/xen"), shop.out.join("xen"))?;
        fs::write(shop.out.join("config"), result)?;
        Ok(())
    })
}

/// Debian's own build, which has no IOREQ server; the artefact holds `xen`.
pub(crate) fn debians_own(
    cache: &Cache,
    debian: &Debian<'_>,
    package: &Package,
) -> Result<Artefact> {
    let recipe = Recipe::new("xen-debian", 1).part("package", &package.file);
    cache.get(recipe, |shop| {
        apt::unpack(&debian.file(""), std::slice::from_ref(package), shop.work, shop.log)?;
        let boot = shop.work.join("boot");
        let image = fs::read_dir(&boot)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|name| name.starts_with("xen-") && name.ends_with("-arm64"))
            .with_context(|| format!("{} brings no boot/xen-…-arm64", package.file))?;
        fs::copy(boot.join(image), shop.out.join("xen"))?;
        Ok(())
    })
}

fn make(tree: &Path) -> Command {
    let mut command = Command::new("make");
    command.arg("-C").arg(tree.join("xen")).args([
        "XEN_TARGET_ARCH=arm64",
        &format!("CROSS_COMPILE={}", cross::GCC_PREFIX),
        "XEN_CONFIG_EXPERT=y",
    ]);
    command
}

#[cfg(test)]
mod tests {
    use super::{Kept, version};
    use crate::cache::{Cache, Recipe};
    use std::fs;

    const WANTED: &str = "CONFIG_EXPERT=y\nCONFIG_IOREQ_SERVER=y\n";

    #[test]
    fn a_configuration_names_its_version() {
        assert_eq!(version("#\n# Xen/arm 4.20.4 Configuration\n#\n").as_deref(), Some("4.20.4"));
        assert_eq!(version("# Xen/arm64 4.21-rc Configuration").as_deref(), Some("4.21-rc"));
        assert_eq!(version(WANTED), None);
    }

    #[test]
    fn a_hypervisor_built_before_is_found_by_series_and_configuration() {
        let root = std::env::temp_dir().join(format!("xtask-kept-xen-{}", std::process::id()));
        let cache = Cache::at(root.clone()).unwrap();
        for (version, config) in [("4.17.5", WANTED), ("4.20.4", WANTED), ("4.20.5", "")] {
            let recipe = Recipe::new("xen", 1).part("source", version);
            let make = |shop: &crate::cache::Workshop<'_>| {
                let config = format!("# Xen/arm {version} Configuration\n{config}");
                fs::write(shop.out.join("config"), config)?;
                Ok(fs::write(shop.out.join("xen"), "")?)
            };
            cache.get(recipe, make).unwrap();
        }
        let kept = |series: &str| {
            let kept = Kept::of_series(&cache, series.parse().unwrap()).unwrap();
            kept.map(|kept| kept.version)
        };
        assert_eq!(kept("4.20").as_deref(), Some("4.20.4"), "4.20.5 has no IOREQ server");
        assert_eq!(kept("4.17").as_deref(), Some("4.17.5"));
        assert_eq!(kept("4.19"), None);
        fs::remove_dir_all(root).unwrap();
    }
}
