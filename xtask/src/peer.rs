//! qemu-storage-daemon, which ours is compared with: the newest that Debian has for this suite or
//! has ported back to it, with the libraries it wants, beside whatever the host has installed.

use crate::apt::{self, Apt, Package};
use crate::cache::{Artefact, Cache, Recipe};
use crate::host;
use crate::log::output;
use crate::mirror::Mirror;
use crate::resolution::{self, SUITE};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PROGRAM: &str = "usr/bin/qemu-storage-daemon";
/// The package that it is in.
const PACKAGE: &str = "qemu-utils";
/// What unpacking and looking at it takes.
const HOST_PACKAGES: [&str; 2] = ["binutils", "xz-utils"];

#[derive(Serialize, Deserialize)]
struct Packages {
    /// Seconds since 1970.
    resolved_at: u64,
    all: Vec<Package>,
}

/// A program that starts it, whatever the host's C library is.
pub(crate) fn storage_daemon() -> Result<PathBuf> {
    let cache = Cache::open()?;
    host::ensure_packages(&cache, &HOST_PACKAGES)?;
    let debs = cache.path("debs");
    let packages = packages(&cache, &debs)?;
    let recipe = packages
        .iter()
        .fold(Recipe::new("storage-daemon", 8), |r, package| r.part("package", &package.file));
    let tree = cache.get(recipe, |shop| apt::unpack(&debs, &packages, shop.out, shop.log))?;
    starter(&cache, &tree)
}

/// A script that starts the program with the loader and the libraries that came with it; it is not
/// in the artefact, as it names where the cache is.
fn starter(cache: &Cache, tree: &Artefact) -> Result<PathBuf> {
    let program = tree.path(PROGRAM);
    let loader = loader(&program)?;
    let multiarch = output(Command::new("gcc").arg("-print-multiarch"))?;
    let libraries = tree.path("usr/lib").join(multiarch.trim());
    let starter = cache.path("qemu-storage-daemon");
    let script = format!(
        "#!/bin/sh\nexec '{}' --library-path '{}' '{}' \"$@\"\n",
        libraries.join(loader).display(),
        libraries.display(),
        program.display()
    );
    fs::write(&starter, script)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&starter, mode)?;
    Ok(starter)
}

/// The file name of the loader that a program names.
fn loader(program: &Path) -> Result<String> {
    let text = output(Command::new("readelf").arg("-l").arg(program))?;
    text.split_once("interpreter: ")
        .and_then(|(_, rest)| rest.split_once(']'))
        .and_then(|(path, _)| Some(Path::new(path).file_name()?.to_str()?.to_owned()))
        .with_context(|| format!("{} names no loader", program.display()))
}

/// The packages in the cache, or the newest that there are now.
fn packages(cache: &Cache, debs: &Path) -> Result<Vec<Package>> {
    let kept = cache.path("storage-daemon-packages.json");
    let known = fs::read(&kept).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let known = known.filter(|known: &Packages| {
        known.all.iter().all(|package| debs.join(&package.file).exists())
    });
    let old = match known {
        Some(known) if !resolution::is_old(known.resolved_at) => return Ok(known.all),
        old => old,
    };
    match (candidates(cache, debs), old) {
        (Ok(packages), _) => {
            fs::write(kept, serde_json::to_vec_pretty(&packages)?)?;
            Ok(packages.all)
        }
        (Err(error), Some(old)) => {
            eprintln!("  {SUITE} cannot be asked now; using what it had last\n  ({error:#})");
            Ok(old.all)
        }
        (Err(error), None) => Err(error),
    }
}

fn candidates(cache: &Cache, debs: &Path) -> Result<Packages> {
    let mirror = Mirror::find()?;
    let mut sources = mirror.suite(SUITE);
    sources.optional.push(mirror.source(&format!("{SUITE}-backports")));
    let native = output(Command::new("dpkg").arg("--print-architecture"))?;
    let apt = Apt::new(cache.path("apt-peer"), debs.to_owned(), native.trim(), sources)?;
    let log = cache.log("storage-daemon-packages")?;
    cache.timed("storage-daemon-packages", Duration::from_secs(30), || {
        for archive in apt.update(&log)? {
            eprintln!("  {archive} can't be reached, and isn't used");
        }
        let all = apt.closure(&[PACKAGE])?;
        if !all.iter().any(|package| package.name == PACKAGE) {
            bail!("{SUITE} has no {PACKAGE}");
        }
        apt.download(&all, &log)?;
        let resolved_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Packages { resolved_at, all })
    })
}
