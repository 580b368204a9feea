//! `cargo xtask miri`: the tests that Miri can run, of what is unsafe or shared with a guest.

use crate::paths;
use crate::toolchain::quiet;
use anyhow::{Context as _, Result};
use std::process::Command;

/// What is run, as arguments of `cargo test`. Tests that Miri can't run, or only in hours, leave
/// themselves out by `cfg(miri)`.
const SELECTION: [&[&str]; 4] = [
    &["-p", "virtio-mmio-dev", "--lib", "--tests"],
    &["-p", "virtio-blk-dev", "--all-features", "--lib", "--tests"],
    &["-p", "xen-ioreq", "--lib"],
    &["-p", "xen-store", "--all-features", "--lib"],
];

/// True if all of it passed, or Miri can't be had here; then it is compiled, so that it is fit for
/// a machine that has it.
pub(crate) fn run() -> Result<bool> {
    let Some(toolchain) = toolchain() else {
        eprintln!(
            "  no toolchain here has miri, and rustup can't add it: compiling its tests only"
        );
        let passed = each(|selection| {
            let mut check = Command::new("cargo");
            check
                .env("RUSTFLAGS", "--cfg miri -Dwarnings")
                .env("CARGO_TARGET_DIR", paths::target().join("miri"))
                .args(["check", "--quiet", "--locked"])
                .args(selection);
            check
        })?;
        println!("miri: SKIPPED (not to be had); what it would run compiles: {passed}");
        return Ok(passed);
    };
    let passed = each(|selection| {
        let mut test = Command::new("rustup");
        test.args(["run", toolchain, "cargo", "miri", "test", "--locked"])
            .args(selection)
            .env("CARGO_TARGET_DIR", paths::target().join("miri"))
            // proptest wants the working directory. What an engine never gives back is leaked on
            // purpose, and a test does that.
            .env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-ignore-leaks");
        test
    })?;
    println!("miri: {}", if passed { "PASS" } else { "FAIL" });
    Ok(passed)
}

/// A toolchain with Miri, after trying to make one.
fn toolchain() -> Option<&'static str> {
    let has = |name: &str| {
        quiet(Command::new("rustup").args(["run", name, "cargo", "miri", "--version"]))
    };
    let found = || ["nightly", "stable"].into_iter().find(|name| has(name));
    found().or_else(|| {
        let mut add = Command::new("rustup");
        add.args(["component", "add", "--toolchain", "nightly", "miri", "rust-src"]);
        quiet(&mut add);
        found()
    })
}

/// Runs each of the selection; true if all passed.
fn each(command: impl Fn(&[&str]) -> Command) -> Result<bool> {
    let mut passed = true;
    for selection in SELECTION {
        let mut command = command(selection);
        let status = command.current_dir(paths::root()).status();
        passed &= status.with_context(|| format!("starting {command:?}"))?.success();
    }
    Ok(passed)
}
