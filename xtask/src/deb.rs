//! `cargo xtask deb`: the daemon as a Debian package, in `target/debian`.

mod licences;
mod package;
mod release;
mod tree;
mod verify;

use crate::architecture::Architecture;
use crate::cache::Cache;
use crate::case::DAEMON;
use crate::cross::Compiler;
use crate::toolchain::quiet;
use crate::{log, paths};
use anyhow::{Context as _, Result, bail};
use licences::Licences;
use package::Package;
use release::Release;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the package of the daemon with these features, and looks it over; true if all is as it should be.
pub(crate) fn run(architecture: Option<Architecture>, features: &[String]) -> Result<bool> {
    let host = Architecture::host();
    let architecture = match (architecture, &host) {
        (Some(architecture), _) => architecture,
        (None, Ok(host)) => *host,
        (None, Err(error)) => bail!("{error:#}"),
    };
    let (package, deb) = build(&Cache::open()?, architecture, features)?;
    println!("{}", deb.display());
    let runs_here = host.is_ok_and(|host| host == architecture);
    let findings = verify::all(&deb, &package, runs_here)?;
    for finding in &findings {
        println!("deb: {finding}");
    }
    Ok(!findings.iter().any(verify::Finding::is_fault))
}

/// The package for arm64, as it is released.
pub(crate) fn for_testbed(cache: &Cache) -> Result<PathBuf> {
    Ok(build(cache, Architecture::Arm64, &[])?.1)
}

fn build(
    cache: &Cache,
    architecture: Architecture,
    features: &[String],
) -> Result<(Package, PathBuf)> {
    if !quiet(Command::new("dpkg-deb").arg("--version")) {
        bail!("there is no dpkg-deb, which makes the package: install dpkg");
    }
    let compiler = Compiler::choose_for(architecture, cache)?;
    let package = Package {
        name: DAEMON,
        architecture,
        release: Release::of_checkout()?,
        binary: compiler.example(DAEMON, features)?,
        pages: pages()?,
        licences: Licences::of(compiler.target(), features)?,
    };
    let deb = package.build(&paths::target().join("debian"))?;
    Ok((package, deb))
}

/// The man pages and shell completions, made anew: `man/` and `completions/` in a directory.
fn pages() -> Result<PathBuf> {
    let dir = paths::target().join("debian/pages");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("emptying {}", dir.display()))?;
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--locked", "--package", "xen-virtio-packaging", "--"]).arg(&dir);
    log::output(cargo.current_dir(paths::root()))
        .context("writing the man pages and completions")?;
    Ok(dir)
}

/// A file of the recipe.
fn recipe(name: &str) -> PathBuf {
    paths::root().join("packaging").join(name)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}
