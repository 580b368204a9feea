//! A Xen source tree of the user's own, to build the hypervisor from.

use crate::log::Log;
use crate::paths;
use crate::series::Series;
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const VARIABLE: &str = "XEN_VIRTIO_XEN_SOURCE";

#[derive(Debug)]
pub(crate) struct XenTree {
    dir: PathBuf,
    pub(crate) series: Series,
    /// Another one once a file has changed.
    pub(crate) state: String,
}

impl XenTree {
    /// The tree that `XEN_VIRTIO_XEN_SOURCE` names.
    pub(crate) fn named() -> Result<Option<Self>> {
        let dir = std::env::var_os(VARIABLE).filter(|dir| !dir.is_empty());
        let at = |dir| Self::at(Path::new(&dir)).with_context(|| format!("{VARIABLE}={dir:?}"));
        dir.map(at).transpose()
    }

    pub(crate) fn at(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize()?;
        let makefile = fs::read_to_string(dir.join("xen/Makefile"))
            .context("it is no Xen source tree: reading its xen/Makefile")?;
        let series = Series::of_makefile(&makefile).context("its xen/Makefile")?;
        let state = state(&dir)?;
        Ok(Self { dir, series, state })
    }

    /// Whether a toolstack of this version works with the tree's hypervisor.
    pub(crate) fn suits(&self, toolstack: &str) -> Result<()> {
        let wanted = Series::of_version(toolstack)?;
        if wanted != self.series {
            bail!(
                "its toolstack, {toolstack}, works with a hypervisor of Xen {wanted} only, and {self} \
                 is Xen {}",
                self.series
            );
        }
        Ok(())
    }

    /// Copies the tree without its history and without what was built in it.
    pub(crate) fn copy(&self, to: &Path, log: &Log) -> Result<()> {
        fs::create_dir(to)?;
        let mut cp = Command::new("cp");
        cp.arg("-a").args(entries(&self.dir)?).arg(to);
        log.run(&mut cp)?;
        log.run(Command::new("make").arg("-C").arg(to.join("xen")).arg("distclean"))
    }
}

impl std::fmt::Display for XenTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.dir.display().fmt(f)
    }
}

/// What is in the tree, apart from its history.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path| {
            path.as_ref().map_or(true, |path| path.file_name() != Some(OsStr::new(".git")))
        })
        .collect::<Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

/// A hash over the files' names, sizes and times.
fn state(dir: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for entry in entries(dir)? {
        let files = if entry.symlink_metadata()?.is_dir() {
            paths::files_below(&entry)?
        } else {
            vec![entry]
        };
        for file in files {
            let about = file.symlink_metadata()?;
            hash.update(file.strip_prefix(dir)?.as_os_str().as_bytes());
            hash.update(format!("\0{} {} {}\n", about.size(), about.mtime(), about.mtime_nsec()));
        }
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::XenTree;
    use crate::log::Log;
    use std::fs;
    use std::path::PathBuf;

    /// A tree of Xen 4.20, as far as is looked at here.
    fn tree(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("xtask-tree-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("xen/common")).unwrap();
        let makefile =
            "export XEN_VERSION = 4\nexport XEN_SUBVERSION = 20\ndistclean:\n\trm -f a.o\n";
        fs::write(dir.join("xen/Makefile"), makefile).unwrap();
        fs::write(dir.join("xen/common/domain.c"), "int a;").unwrap();
        fs::write(dir.join("Config.mk"), "").unwrap();
        dir
    }

    #[test]
    fn the_state_changes_with_the_files_and_not_with_the_history() {
        let dir = tree("state");
        let state = || XenTree::at(&dir).unwrap().state;
        let first = state();
        assert_eq!(state(), first);
        fs::create_dir(dir.join(".git")).unwrap();
        fs::write(dir.join(".git/index"), "x").unwrap();
        assert_eq!(state(), first);
        fs::write(dir.join("xen/common/domain.c"), "int ab;").unwrap();
        let second = state();
        assert_ne!(second, first);
        fs::write(dir.join("Config.mk"), "x").unwrap();
        assert_ne!(state(), second);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_copy_has_the_sources_alone() {
        let dir = tree("copy");
        fs::create_dir(dir.join(".git")).unwrap();
        fs::write(dir.join("xen/a.o"), "built").unwrap();
        let to = dir.with_extension("to");
        let log = Log::create(dir.with_extension("log")).unwrap();
        XenTree::at(&dir).unwrap().copy(&to, &log).unwrap();
        assert!(to.join("xen/common/domain.c").exists() && to.join("Config.mk").exists());
        assert!(!to.join(".git").exists() && !to.join("xen/a.o").exists());
        assert!(dir.join("xen/a.o").exists(), "the tree itself stays as it is");
        for left in [dir.clone(), to] {
            fs::remove_dir_all(left).unwrap();
        }
        fs::remove_file(dir.with_extension("log")).unwrap();
    }

    #[test]
    fn a_toolstack_of_another_series_does_not_suit() {
        let dir = tree("suits");
        let tree = XenTree::at(&dir).unwrap();
        tree.suits("4.20.4+63-g7abfd2bce2-0+deb13u1").unwrap();
        let error = tree.suits("4.17.5+72-g01140da4e8-1").unwrap_err().to_string();
        assert!(error.contains("of Xen 4.17 only") && error.contains("is Xen 4.20"), "{error}");
        assert!(XenTree::at(&dir.join("xen")).is_err(), "no tree");
        fs::remove_dir_all(dir).unwrap();
    }
}
