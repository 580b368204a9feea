//! `cargo xtask compare`: installs and builds what is compared, and runs the comparison.

use crate::{paths, peer};
use anyhow::{Context as _, Result, bail};
use std::process::Command;

/// Our device, as a package and a binary of the workspace.
const OURS: &str = "vhost-user-blk";

/// True if everything was measured.
pub(crate) fn run(options: &[String]) -> Result<bool> {
    let peer = peer::storage_daemon()?;
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
