//! `cargo xtask compare`: installs and builds what is compared, and runs the comparison.

use crate::cache::Cache;
use crate::{host, paths};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::Command;

const PEER: &str = "qemu-storage-daemon";
/// The packages that it has been in.
const PEER_PACKAGES: [&str; 2] = ["qemu-system-common", "qemu-utils"];
/// Our device, as a package and a binary of the workspace.
const OURS: &str = "vhost-user-blk";

/// True if everything was measured.
pub(crate) fn run(options: &[String]) -> Result<bool> {
    let peer = peer()?;
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "xen-virtio-benches", "--bin", "compare"]);
    let ours = paths::root().join("examples").join(OURS).is_dir();
    if ours {
        build.args(["--package", OURS, "--bin", OURS]);
    }
    if !build.current_dir(paths::root()).status().context("starting cargo")?.success() {
        bail!("the comparison doesn't build");
    }
    let binaries = paths::target().join("release");
    let mut compare = Command::new(binaries.join("compare"));
    compare.arg("--output").arg(paths::target()).arg("--qemu-storage-daemon").arg(peer);
    if ours {
        compare.arg("--vhost-user-blk").arg(binaries.join(OURS));
    }
    let status = compare.args(options).status().context("starting the comparison")?;
    Ok(status.success())
}

/// The peer's program, installed if need be.
fn peer() -> Result<PathBuf> {
    if let Some(path) = on_path(PEER) {
        return Ok(path);
    }
    host::ensure_packages(&Cache::open()?, &PEER_PACKAGES)?;
    on_path(PEER).with_context(|| format!("{PEER} is not in {}", PEER_PACKAGES.join(" or ")))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}
