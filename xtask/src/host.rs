//! What the host must have: a Debian with these packages.

use crate::cache::Cache;
use crate::log::{Log, output};
use anyhow::{Result, bail};
use std::fs;
use std::process::Command;
use std::time::Duration;

const PACKAGES: [&str; 17] = [
    "bc",
    "binutils-aarch64-linux-gnu",
    "bison",
    "ca-certificates",
    "cpio",
    "e2fsprogs",
    "flex",
    "gcc",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "libxen-dev",
    "linux-libc-dev",
    "make",
    "patch",
    "python3",
    "qemu-system-arm",
    "xz-utils",
];

/// Installs what the testbed needs and is missing, or says what that is.
pub(crate) fn ensure(cache: &Cache) -> Result<()> {
    ensure_packages(cache, &PACKAGES)
}

/// Installs the packages that are missing, or says which they are.
pub(crate) fn ensure_packages(cache: &Cache, packages: &[&str]) -> Result<()> {
    if os_release("ID").as_deref() != Some("debian") {
        bail!(
            "the testbed is built from Debian's packages and wants a Debian host. Elsewhere, a \
             Debian container with this checkout does; the packages it uses are: {}",
            packages.join(" ")
        );
    }
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        bail!(
            "packages are missing, and only root can install them:\n  apt-get install {}",
            missing.join(" ")
        );
    }
    let log = cache.log("host-packages")?;
    cache.timed("host-packages", Duration::from_secs(40), || {
        // A host that never ran `apt-get update` knows no package; one that did may know
        // versions that are gone. So: as it is, then refreshed.
        if !install(cache, &log, &missing)? {
            log.run(Command::new("apt-get").args([
                "-q",
                "update",
                "-o",
                "DPkg::Lock::Timeout=600",
            ]))?;
            log.status(apt_get(cache).args(["--fix-broken", "install"]))?;
            log.run(install_command(cache, &missing).args(["--fix-missing"]))?;
        }
        Ok(())
    })
}

/// A value of /etc/os-release.
pub(crate) fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let listed = output(Command::new("dpkg-query").args([
        "-W",
        "-f",
        "${binary:Package} ${db:Status-Status}\n",
    ]))?;
    let installed = |package: &str| {
        listed.lines().any(|line| match line.split_once(' ') {
            Some((name, "installed")) => name.split(':').next() == Some(package),
            _ => false,
        })
    };
    Ok(packages.iter().copied().filter(|package| !installed(package)).collect())
}

fn install(cache: &Cache, log: &Log, packages: &[&str]) -> Result<bool> {
    Ok(log.status(&mut install_command(cache, packages))?.success())
}

fn install_command(cache: &Cache, packages: &[&str]) -> Command {
    let mut command = apt_get(cache);
    command.args(["install", "--no-install-recommends"]).args(packages);
    command
}

/// The host's apt-get, keeping its archives in our cache: some hosts empty
/// /var/cache/apt on every `update`, even under an installation that runs.
fn apt_get(cache: &Cache) -> Command {
    let archives = cache.path("host-debs");
    let _ = fs::create_dir_all(archives.join("partial"));
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-y", "-o", "DPkg::Lock::Timeout=600", "-o"])
        .arg(format!("Dir::Cache::archives={}", archives.display()));
    command
}
