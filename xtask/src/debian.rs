//! Which Debian packages the testbed is made of: resolved once, kept, and recorded.

use crate::apt::{self, Apt, Package};
use crate::cache::{Artefact, Cache, Recipe};
use crate::suites::{PassedOver, Suites, first};
use crate::toolstack::{self, Toolstack};
use crate::xen_tree::{VARIABLE, XenTree};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The suite of the kernels, of the guests' userland and, if it can be had there, of Xen.
pub(crate) const SUITE: &str = "trixie";
/// Where Xen comes from: the first of these suites whose mirror has all that is needed. A source
/// package goes missing at times, when its index is ahead of the mirror's files.
const XEN_SUITES: [&str; 2] = [SUITE, "bookworm"];
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The Debian root file system of a guest.
const ROOTFS: [&str; 6] = ["base-files", "bash", "coreutils", "e2fsprogs", "mount", "sed"];

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
    /// Xen of the suites that were looked at.
    toolstacks: Vec<Toolstack>,
    /// The suites whose Xen could not be had.
    passed_over: Vec<PassedOver>,
}

/// The Xen that was chosen.
pub(crate) struct Chosen {
    pub(crate) toolstack: Toolstack,
    pub(crate) passed_over: Vec<PassedOver>,
}

impl Chosen {
    /// Says so if Xen isn't the first suite's.
    pub(crate) fn announce(&self, tree: Option<&XenTree>) {
        let Self { toolstack, passed_over } = self;
        if passed_over.is_empty() {
            return;
        }
        eprintln!(
            "  Xen and dom0's userland are {}'s, Xen {}, and cases that want a newer one are skipped:",
            toolstack.suite,
            toolstack.version()
        );
        for PassedOver { suite, why } in passed_over {
            eprintln!("  {suite}'s cannot be used: {why}");
        }
        if tree.is_none() {
            eprintln!("  `cargo xtask testbed build --update` looks for it again");
        }
    }
}

/// The suites' packages, on this machine.
pub(crate) struct Debian<'a> {
    cache: &'a Cache,
    suites: Suites<'a>,
    /// Whether the resolution was made just now.
    fresh: bool,
    pub(crate) resolution: Resolution,
}

impl<'a> Debian<'a> {
    /// The resolution in the cache, or a new one if there is none, it is old, or `update` asks.
    pub(crate) fn resolve(cache: &'a Cache, update: bool) -> Result<Self> {
        let kept: Option<Resolution> = fs::read(file(cache))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .filter(|kept: &Resolution| kept.suite == SUITE && kept.wanted == wanted());
        let mut suites = Suites::new(cache);
        if let Some(resolution) = kept.clone().filter(|kept| !update && kept.age() < MAX_AGE) {
            return Ok(Self { cache, suites, fresh: false, resolution });
        }
        let fresh = suites.refreshed(SUITE).and_then(|apt| candidates(&apt));
        match (fresh, kept) {
            (Ok(resolution), _) => {
                let debian = Self { cache, suites, fresh: true, resolution };
                debian.save()?;
                Ok(debian)
            }
            (Err(error), Some(resolution)) => {
                eprintln!(
                    "  the candidates of {SUITE} cannot be resolved now; using the last known ones\n  ({error:#})"
                );
                Ok(Self { cache, suites, fresh: false, resolution })
            }
            (Err(error), None) => {
                Err(error.context(format!("resolving the candidates of {SUITE}")))
            }
        }
    }

    /// Downloads what is not in the cache yet, resolving anew if a version is gone.
    pub(crate) fn download(&mut self, tree: Option<&XenTree>) -> Result<Chosen> {
        match self.download_resolved(tree) {
            // A version vanishes from the mirrors once the suite has its successor.
            Err(error) if !self.fresh => {
                eprintln!("  {error:#}\n  so the candidates are resolved anew");
                *self = Self::resolve(self.cache, true)?;
                self.download_resolved(tree)
            }
            result => result,
        }
    }

    fn download_resolved(&mut self, tree: Option<&XenTree>) -> Result<Chosen> {
        let Resolution { rootfs, stock_kernel, linux_source, .. } = &self.resolution;
        let mut packages = rootfs.clone();
        packages.extend([stock_kernel, linux_source].map(Clone::clone));
        if !packages.iter().all(|package| self.file(&package.file).exists()) {
            let (apt, log) = (self.suites.kept(SUITE)?, self.cache.log("download")?);
            let expected = Duration::from_secs(60);
            self.cache.timed("download", expected, || apt.download(&packages, &log))?;
        }
        let (toolstack, passed_over) = first(&XEN_SUITES, |suite| self.toolstack(suite, tree))
            .with_context(|| match tree {
                Some(tree) => format!("{VARIABLE}={tree} wants a toolstack of its series"),
                None => format!("Xen and dom0's userland ({VARIABLE} can replace the source)"),
            })?;
        if tree.is_none() {
            self.resolution.passed_over.clone_from(&passed_over);
        }
        self.save()?;
        Ok(Chosen { toolstack, passed_over })
    }

    /// Xen of a suite, downloaded; an inner error if another suite has to do.
    fn toolstack(&mut self, suite: &str, tree: Option<&XenTree>) -> Result<Result<Toolstack>> {
        let known = self.resolution.passed_over.iter().find(|passed| passed.suite == suite);
        if let (Some(known), None) = (known, tree) {
            return Ok(Err(anyhow::Error::msg(known.why.clone())));
        }
        let toolstack = match self.resolve_toolstack(suite) {
            Ok(toolstack) => toolstack,
            Err(error) => return self.gone(error),
        };
        if let Some(unsuited) = tree.and_then(|tree| tree.suits(toolstack.version()).err()) {
            return Ok(Err(unsuited));
        }
        match self.download_toolstack(&toolstack, tree.is_none()) {
            Ok(()) => Ok(Ok(toolstack)),
            Err(error) => self.gone(error),
        }
    }

    /// What a suite's error means: of a resolution made just now, that the suite hasn't it.
    fn gone<T>(&self, error: anyhow::Error) -> Result<Result<T>> {
        if self.fresh { Ok(Err(error)) } else { Err(error) }
    }

    fn resolve_toolstack(&mut self, suite: &str) -> Result<Toolstack> {
        let known = self.resolution.toolstacks.iter().find(|known| known.suite == suite);
        if let Some(toolstack) = known {
            return Ok(toolstack.clone());
        }
        let toolstack = Toolstack::resolve(&self.suites.refreshed(suite)?, suite)?;
        self.resolution.toolstacks.push(toolstack.clone());
        Ok(toolstack)
    }

    fn download_toolstack(&self, toolstack: &Toolstack, with_source: bool) -> Result<()> {
        let mut files: Vec<String> =
            toolstack.packages().into_iter().map(|package| package.file).collect();
        if with_source {
            files.extend(toolstack.source()?.files.iter().map(|(file, _)| file.clone()));
        }
        if files.iter().all(|file| self.file(file).exists()) {
            return Ok(());
        }
        let name = format!("download-xen-{}", toolstack.suite);
        let (apt, log) = (self.suites.kept(&toolstack.suite)?, self.cache.log(&name)?);
        self.cache
            .timed(&name, Duration::from_secs(30), || toolstack.download(&apt, with_source, &log))
    }

    fn save(&self) -> Result<()> {
        Ok(fs::write(file(self.cache), serde_json::to_vec_pretty(&self.resolution)?)?)
    }

    /// A downloaded file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.cache.path("debs").join(name)
    }

    /// The packages' content, unpacked.
    pub(crate) fn tree(&self, name: &'static str, packages: &[Package]) -> Result<Artefact> {
        let recipe = packages
            .iter()
            .fold(Recipe::new(name, 8), |recipe, package| recipe.part("package", &package.file));
        let debs = self.file("");
        self.cache.get(recipe, |shop| apt::unpack(&debs, packages, shop.out, shop.log))
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

fn file(cache: &Cache) -> PathBuf {
    cache.path("resolution.json")
}

fn wanted() -> String {
    [&toolstack::DOM0[..], &ROOTFS, &XEN_SUITES].concat().join(" ")
}

fn candidates(apt: &Apt) -> Result<Resolution> {
    let stock_kernel = apt.dependency("linux-image-cloud-arm64", "linux-image-")?;
    let linux_source = apt.dependency("linux-source", "linux-source-")?;
    Ok(Resolution {
        resolved_at: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        suite: SUITE.to_owned(),
        wanted: wanted(),
        rootfs: apt.closure(&ROOTFS)?,
        stock_kernel: apt.candidate(&stock_kernel)?,
        linux_source: apt.candidate(&linux_source)?,
        toolstacks: Vec::new(),
        passed_over: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Debian, Resolution, XEN_SUITES};
    use crate::apt::{Package, Source};
    use crate::cache::Cache;
    use crate::suites::{PassedOver, Suites};
    use crate::toolstack::Toolstack;
    use crate::xen_tree::XenTree;
    use std::fs;
    use std::path::PathBuf;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "arm64".to_owned(),
            file: format!("{name}_{version}_arm64.deb"),
        }
    }

    fn toolstack(suite: &str, version: &str, has_source: bool) -> Toolstack {
        let files = vec![(format!("xen_{version}.orig.tar.xz"), String::new())];
        let source = Source { name: "xen".to_owned(), version: version.to_owned(), files };
        Toolstack {
            suite: suite.to_owned(),
            dom0: vec![package("xen-utils", version)],
            hypervisor: package("xen-hypervisor", version),
            source: has_source.then_some(source),
        }
    }

    /// A cache with everything in it, and a resolution of both suites; without trixie's source
    /// if its index is ahead.
    fn with(name: &str, trixie_has_source: bool, fresh: bool, test: impl FnOnce(Debian<'_>)) {
        let root = std::env::temp_dir().join(format!("xtask-debian-{name}-{}", std::process::id()));
        let cache = Cache::at(root.clone()).unwrap();
        let kernel = package("linux", "6.12");
        let resolution = Resolution {
            resolved_at: 0,
            suite: XEN_SUITES[0].to_owned(),
            wanted: String::new(),
            rootfs: vec![],
            stock_kernel: kernel.clone(),
            linux_source: kernel,
            toolstacks: vec![
                toolstack(XEN_SUITES[0], "4.20.4+63-1", trixie_has_source),
                toolstack(XEN_SUITES[1], "4.17.5+72-1", true),
            ],
            passed_over: vec![],
        };
        for file in resolution.toolstacks.iter().flat_map(|toolstack| {
            let sources = toolstack.source.iter().flat_map(|source| source.files.clone());
            let packages = toolstack.packages().into_iter().map(|package| package.file);
            packages.chain(sources.map(|(file, _)| file)).collect::<Vec<_>>()
        }) {
            fs::write(root.join("debs").join(file), "").unwrap();
        }
        fs::write(root.join("debs/linux_6.12_arm64.deb"), "").unwrap();
        test(Debian { cache: &cache, suites: Suites::new(&cache), fresh, resolution });
        fs::remove_dir_all(root).unwrap();
    }

    fn tree(name: &str, minor: u32) -> (XenTree, PathBuf) {
        let dir = std::env::temp_dir().join(format!("xtask-own-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("xen")).unwrap();
        let makefile = format!("XEN_VERSION = 4\nXEN_SUBVERSION = {minor}\n");
        fs::write(dir.join("xen/Makefile"), makefile).unwrap();
        (XenTree::at(&dir).unwrap(), dir)
    }

    #[test]
    fn the_first_suite_is_taken_as_long_as_it_has_all() {
        with("first", true, false, |mut debian| {
            let chosen = debian.download_resolved(None).unwrap();
            assert_eq!(chosen.toolstack.suite, XEN_SUITES[0]);
            assert!(chosen.passed_over.is_empty());
        });
    }

    #[test]
    fn another_suite_stands_in_until_the_next_resolution() {
        with("stands-in", false, true, |mut debian| {
            let chosen = debian.download_resolved(None).unwrap();
            assert_eq!(chosen.toolstack.suite, XEN_SUITES[1]);
            assert_eq!(chosen.passed_over[0].suite, XEN_SUITES[0]);
            let recorded = fs::read(super::file(debian.cache)).unwrap();
            let recorded: Resolution = serde_json::from_slice(&recorded).unwrap();
            assert_eq!(recorded.passed_over, chosen.passed_over);
        });
        with("recorded", true, false, |mut debian| {
            let (suite, why) = (XEN_SUITES[0].to_owned(), "404".to_owned());
            debian.resolution.passed_over = vec![PassedOver { suite, why }];
            assert_eq!(debian.download_resolved(None).unwrap().toolstack.suite, XEN_SUITES[1]);
        });
    }

    #[test]
    fn what_a_kept_resolution_lacks_may_have_a_successor() {
        with("kept", false, false, |mut debian| {
            assert!(debian.download_resolved(None).is_err());
            assert!(debian.resolution.passed_over.is_empty());
        });
    }

    #[test]
    fn a_tree_takes_the_toolstack_of_its_series_and_needs_no_source() {
        for (minor, expected) in [(20, Some(XEN_SUITES[0])), (17, Some(XEN_SUITES[1])), (18, None)]
        {
            let (tree, dir) = tree(&format!("{minor}"), minor);
            with(&format!("own-{minor}"), false, false, |mut debian| {
                let chosen = debian.download_resolved(Some(&tree));
                let suite = chosen.as_ref().ok().map(|chosen| chosen.toolstack.suite.as_str());
                assert_eq!(suite, expected);
                assert!(debian.resolution.passed_over.is_empty(), "the suites are all right");
            });
            fs::remove_dir_all(dir).unwrap();
        }
    }
}
