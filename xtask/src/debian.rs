//! Which Debian packages the testbed is made of: resolved once, kept, and recorded.

use crate::apt::{self, Package, Source};
use crate::cache::{Artefact, Cache, Recipe};
use crate::resolution::{Resolution, SUITE, XEN_SUITES};
use crate::suites::{PassedOver, Suites, first};
use crate::toolstack::Toolstack;
use crate::xen::Kept;
use crate::xen_tree::{VARIABLE, XenTree};
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::time::Duration;

/// The Xen that was chosen.
pub(crate) struct Chosen {
    pub(crate) toolstack: Toolstack,
    /// The suites before it, none of which could be used.
    pub(crate) passed_over: Vec<PassedOver>,
    /// The hypervisor if its source can't be had: one of the toolstack's series, built before.
    pub(crate) kept: Option<Kept>,
}

/// A suite's toolstack, and what its hypervisor is if not to be built from the suite's source.
struct Found {
    toolstack: Toolstack,
    kept: Option<(Kept, PassedOver)>,
}

impl Chosen {
    /// Says so if Xen isn't the first suite's.
    pub(crate) fn announce(&self, tree: Option<&XenTree>) {
        let Self { toolstack, passed_over, kept } = self;
        if let Some(Kept { version, .. }) = kept {
            eprintln!(
                "  Xen {version} is one that was built before: {}'s source of it is missing",
                toolstack.suite
            );
        }
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
        let kept = Resolution::kept(cache);
        let mut suites = Suites::new(cache);
        if let Some(resolution) = kept.clone().filter(|kept| !update && !kept.is_old()) {
            return Ok(Self { cache, suites, fresh: false, resolution });
        }
        let fresh = suites.refreshed(SUITE).and_then(|apt| Resolution::candidates(&apt));
        match (fresh, kept) {
            (Ok(resolution), _) => {
                let mut debian = Self { cache, suites, fresh: true, resolution };
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
        let (found, passed_over) = first(&XEN_SUITES, |suite| self.toolstack(suite, tree))
            .with_context(|| match tree {
                Some(tree) => format!("{VARIABLE}={tree} wants a toolstack of its series"),
                None => format!("Xen and dom0's userland ({VARIABLE} can replace the source)"),
            })?;
        let Found { toolstack, kept } = found;
        let (kept, sourceless) = kept.unzip();
        if tree.is_none() {
            self.resolution.passed_over = passed_over.iter().cloned().chain(sourceless).collect();
        }
        self.save()?;
        Ok(Chosen { toolstack, passed_over, kept })
    }

    /// Xen of a suite, downloaded; an inner error if another suite has to do.
    fn toolstack(&mut self, suite: &str, tree: Option<&XenTree>) -> Result<Result<Found>> {
        let known = self.resolution.passed_over.iter().find(|passed| passed.suite == suite);
        if let (Some(known), None) = (known.cloned(), tree) {
            return self.without_source(known);
        }
        let toolstack = match self.resolve_toolstack(suite) {
            Ok(toolstack) => toolstack,
            Err(error) => return self.gone(error),
        };
        if let Some(unsuited) = tree.and_then(|tree| tree.suits(toolstack.version()).err()) {
            return Ok(Err(unsuited));
        }
        match self.download_toolstack(&toolstack, tree.is_none()) {
            Ok(()) => Ok(Ok(Found { toolstack, kept: None })),
            Err(error) => match self.gone::<Found>(error)? {
                Err(why) if tree.is_none() => {
                    let why = format!("{why:#}");
                    self.without_source(PassedOver { suite: suite.to_owned(), why })
                }
                gone => Ok(gone),
            },
        }
    }

    /// Xen of a suite that is passed over, if nothing but its source is missing and the cache has a
    /// hypervisor of its series.
    fn without_source(&self, passed_over: PassedOver) -> Result<Result<Found>> {
        let why = anyhow::Error::msg(passed_over.why.clone());
        let toolstacks = &self.resolution.toolstacks;
        let Some(toolstack) = toolstacks.iter().find(|known| known.suite == passed_over.suite)
        else {
            return Ok(Err(why));
        };
        let Some(kept) = Kept::of_series(self.cache, toolstack.series()?)? else {
            return Ok(Err(why));
        };
        let (toolstack, kept) = (toolstack.clone(), Some((kept, passed_over)));
        match self.download_toolstack(&toolstack, false) {
            Ok(()) => Ok(Ok(Found { toolstack, kept })),
            Err(_) => Ok(Err(why)),
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

    fn save(&mut self) -> Result<()> {
        self.resolution.without_security.extend(self.suites.take_unreached());
        self.resolution.save(self.cache)
    }

    /// A downloaded file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.cache.path("debs").join(name)
    }

    /// U-Boot's source, downloaded.
    pub(crate) fn uboot(&self) -> Result<&Source> {
        let source = self.resolution.uboot.as_ref();
        let source = source.with_context(|| format!("{SUITE}'s index has no source of U-Boot"))?;
        if !source.files.iter().all(|(file, _)| self.file(file).exists()) {
            let (apt, log) = (self.suites.kept(SUITE)?, self.cache.log("download-u-boot")?);
            let expected = Duration::from_secs(10);
            self.cache.timed("download-u-boot", expected, || apt.download_source(source, &log))?;
        }
        Ok(source)
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

#[cfg(test)]
mod tests {
    use super::Debian;
    use crate::apt::{Package, Source};
    use crate::cache::{Cache, Recipe};
    use crate::resolution::{Resolution, XEN_SUITES};
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
        let toolstacks = vec![
            toolstack(XEN_SUITES[0], "4.20.4+63-1", trixie_has_source),
            toolstack(XEN_SUITES[1], "4.17.5+72-1", true),
        ];
        let resolution = Resolution::of(&kernel, toolstacks);
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
            let recorded = Resolution::kept(debian.cache).unwrap();
            assert_eq!(recorded.passed_over, chosen.passed_over);
        });
        with("recorded", true, false, |mut debian| {
            let (suite, why) = (XEN_SUITES[0].to_owned(), "404".to_owned());
            debian.resolution.passed_over = vec![PassedOver { suite, why }];
            assert_eq!(debian.download_resolved(None).unwrap().toolstack.suite, XEN_SUITES[1]);
        });
    }

    /// A hypervisor that was built from a tree of Xen 4.20.
    fn build(cache: &Cache) {
        let config = fs::read_to_string(crate::paths::testbed("xen.config")).unwrap();
        let make = |shop: &crate::cache::Workshop<'_>| {
            fs::write(
                shop.out.join("config"),
                format!("# Xen/arm 4.20.4 Configuration\n{config}"),
            )?;
            Ok(fs::write(shop.out.join("xen"), "")?)
        };
        cache.get(Recipe::new("xen", 1), make).unwrap();
    }

    #[test]
    fn a_hypervisor_built_before_stands_in_for_a_missing_source_and_no_older_suite_does() {
        with("kept-xen", false, true, |mut debian| {
            build(debian.cache);
            for again in [false, true] {
                // The second time, the source is known to be missing.
                debian.fresh = !again;
                let chosen = debian.download_resolved(None).unwrap();
                assert_eq!(chosen.toolstack.suite, XEN_SUITES[0]);
                assert!(chosen.passed_over.is_empty());
                assert_eq!(chosen.kept.unwrap().version, "4.20.4");
                assert_eq!(
                    debian.resolution.passed_over.len(),
                    1,
                    "its source is looked for again"
                );
            }
        });
        with("kept-xen-source", true, true, |mut debian| {
            build(debian.cache);
            let chosen = debian.download_resolved(None).unwrap();
            assert!(chosen.kept.is_none(), "a source that is there is what Xen is built from");
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
