//! The host's tools and file systems, where the tests may use them.
#![allow(dead_code, unreachable_pub)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a tool; its standard output, or `None` if it is missing or fails.
pub fn run<S: AsRef<OsStr>>(tool: &str, args: impl IntoIterator<Item = S>) -> Option<String> {
    let output = Command::new(tool).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Says why a test checks nothing here.
pub fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// A loop device over `file`.
pub struct Loop(pub PathBuf);

impl Loop {
    /// With logical blocks of `block` bytes; `None` where there are no loop devices to be had.
    pub fn new(file: &Path, block: u32) -> Option<Self> {
        let block = block.to_string();
        let args = ["--find", "--show", "--sector-size", &block, file.to_str()?];
        let device = run("losetup", args);
        if device.is_none() {
            skip("no loop device to be had: needs root and losetup");
        }
        device.map(|path| Self(path.into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", [OsStr::new("--detach"), self.0.as_os_str()]);
    }
}

/// Runs `test` in a mount namespace of its own, with what `mount` mounts.
pub fn with_mount(mount: &[&OsStr], test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: concerns this thread alone, which ends with the test.
            if unsafe { libc::unshare(libc::CLONE_NEWNS) } == -1 {
                return skip("no mount namespace to be had: needs root");
            }
            assert!(run("mount", ["--make-rprivate", "/"]).is_some());
            match run("mount", mount) {
                Some(_) => test(),
                None => skip("mount failed"),
            }
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
