//! An interactive dom0.

use crate::paths;
use crate::qemu::Mode;
use crate::run;
use crate::testbed::Testbed;
use anyhow::{Context as _, Result};
use std::fs;

/// Gives the terminal to dom0's console until the machine ends.
pub(crate) fn run() -> Result<bool> {
    let testbed = Testbed::build(false)?;
    let binaries = testbed.daemon()?;
    let (dir, share) = (paths::results("run").join("shell"), paths::results("share"));
    fs::create_dir_all(&dir)?;
    fs::create_dir_all(&share)?;
    let mut machine = run::machine(&testbed, &binaries, None, &dir)?;
    machine.mode = Mode::Fast { share };
    eprintln!("Ctrl-A x ends the machine, Ctrl-A h tells more.");
    let status = machine.command().status().context("starting qemu-system-aarch64")?;
    Ok(status.success())
}
