//! Disk images on the host: made without mounting, handed to runs as copies, checked afterwards.

use crate::cache::{Artefact, Cache, Recipe};
use crate::log::output;
use crate::paths;
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Raise it when the steps below change what they make.
const REVISION: &str = "1";
const SIZE: &str = "128M";
/// What a guest of the testbed never reads.
const LEFT_OUT: [&str; 8] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/share/info",
    "usr/lib/aarch64-linux-gnu/gconv",
    "usr/share/bash-completion",
    "usr/share/zoneinfo",
];

/// A Debian root file system, ext4; the artefact holds `rootfs.img`.
pub(crate) fn rootfs(cache: &Cache, tree: &Artefact) -> Result<Artefact> {
    let scripts = paths::files_below(&paths::testbed("rootfs"))?;
    let mut recipe = Recipe::new("rootfs", 8)
        .part("revision", REVISION)
        .part("size", SIZE)
        .part("left out", LEFT_OUT.join(" "))
        .input(tree);
    for script in &scripts {
        let name = script.file_name().context("a script's name")?;
        recipe = recipe.part("script", name.as_encoded_bytes()).part("text", fs::read(script)?);
    }
    cache.get(recipe, |shop| {
        let root = shop.work.join("root");
        let _ = fs::remove_dir_all(&root);
        shop.log.run(Command::new("cp").arg("-a").arg(tree.path("")).arg(&root))?;
        for dir in LEFT_OUT {
            let _ = fs::remove_dir_all(root.join(dir));
        }
        for (link, dir) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib")] {
            if !root.join(link).exists() {
                std::os::unix::fs::symlink(dir, root.join(link))?;
            }
        }
        // What the packages' maintainer scripts would have done.
        for (link, to) in [("usr/bin/sh", "bash"), ("usr/bin/awk", "mawk")] {
            if !root.join(link).exists() {
                std::os::unix::fs::symlink(to, root.join(link))?;
            }
        }
        for dir in ["proc", "sys", "dev", "tmp", "run", "mnt", "root", "testbed"] {
            fs::create_dir_all(root.join(dir))?;
        }
        for script in &scripts {
            let name = script.file_name().context("a script's name")?;
            let to = if name == "init" {
                root.join("usr/sbin/init")
            } else {
                root.join("testbed").join(name)
            };
            shop.log.run(Command::new("install").args(["-m", "755"]).arg(script).arg(to))?;
        }
        let image = shop.out.join("rootfs.img");
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args([
            "-q",
            "-t",
            "ext4",
            "-L",
            "root",
            "-E",
            "root_owner=0:0",
            "-O",
            "^orphan_file,^metadata_csum_seed",
        ]);
        shop.log.run(mke2fs.arg("-d").arg(&root).arg(&image).arg(SIZE))
    })
}

/// A disk image on the host.
#[derive(Clone, Debug)]
pub(crate) struct Image(PathBuf);

impl Image {
    /// A sparse copy of another image.
    pub(crate) fn copy(of: &Path, to: PathBuf) -> Result<Self> {
        let mut cp = Command::new("cp");
        output(cp.args(["--sparse=always", "--reflink=auto"]).arg(of).arg(&to))?;
        Ok(Self(to))
    }

    /// An empty image of so many bytes.
    pub(crate) fn empty(bytes: u64, at: PathBuf) -> Result<Self> {
        let file = File::create(&at).with_context(|| format!("creating {}", at.display()))?;
        file.set_len(bytes)?;
        Ok(Self(at))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A thorough, read-only check of its ext4. A journal left by a guest that was
    /// not shut down cleanly counts as a fault.
    pub(crate) fn fsck(&self) -> Result<()> {
        let out = Command::new("e2fsck")
            .args(["-f", "-n"])
            .arg(&self.0)
            .output()
            .context("starting e2fsck")?;
        if !out.status.success() {
            bail!(
                "e2fsck of {}: {}",
                self.0.display(),
                String::from_utf8_lossy(&out.stdout).trim_end()
            );
        }
        Ok(())
    }

    /// Copies a directory out of its ext4 without mounting it.
    pub(crate) fn extract(&self, dir: &str, to: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to)?;
        let mut debugfs = Command::new("debugfs");
        debugfs.arg("-R").arg(format!("rdump {dir} {}", to.display()));
        output(debugfs.arg(&self.0)).map(drop)
    }
}
