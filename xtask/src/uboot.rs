//! U-Boot for guests of Xen, from Debian's source: a firmware that reads our disk by polling.

use crate::cache::{Artefact, Cache, Recipe};
use crate::debian::Debian;
use crate::{cross, paths, source};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Raise it when the steps below change what they make.
const REVISION: &str = "1";
const DEFCONFIG: &str = "xenguest_arm64_virtio_defconfig";

/// The firmware; the artefact holds `u-boot.bin` and `config`.
pub(crate) fn guest(cache: &Cache, debian: &Debian<'_>) -> Result<Artefact> {
    let package = debian.uboot()?;
    let wanted = fs::read_to_string(paths::testbed("uboot.config"))?;
    let recipe = Recipe::new("u-boot", 60)
        .part("revision", REVISION)
        .part("source", &package.version)
        .part("compiler", cross::gcc_version()?)
        .part("config", &wanted);
    cache.get(recipe, |shop| {
        let tree = shop.work.join("u-boot");
        if !shop.work.join("unpacked").exists() {
            let _ = fs::remove_dir_all(&tree);
            source::unpack(shop, debian, package, &tree)?;
            fs::write(shop.work.join("unpacked"), "")?;
        }
        let configuration = tree.join(".config");
        shop.log.run(make(&tree).arg(DEFCONFIG))?;
        let defaults = fs::read_to_string(&configuration)?;
        fs::write(&configuration, format!("{defaults}{wanted}"))?;
        shop.log.run(make(&tree).arg("olddefconfig"))?;
        let result = fs::read_to_string(&configuration)?;
        let is_kept = |line: &&str| result.lines().any(|has| has == *line);
        let mut settings = wanted.lines().filter(|line| line.starts_with("CONFIG_"));
        if let Some(lost) = settings.find(|line| !is_kept(line)) {
            bail!("U-Boot's configuration lost {lost}");
        }
        shop.log.run(make(&tree).arg(paths::jobs()).arg("u-boot.bin"))?;
        fs::copy(tree.join("u-boot.bin"), shop.out.join("u-boot.bin")).context("u-boot.bin")?;
        Ok(fs::write(shop.out.join("config"), result)?)
    })
}

fn make(tree: &Path) -> Command {
    let mut command = Command::new("make");
    command.arg("-C").arg(tree).arg("-s").arg(format!("CROSS_COMPILE={}", cross::GCC_PREFIX));
    command
}
