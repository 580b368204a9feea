//! QEMU's tools, which make images of formats and check them.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;

/// A child that is about to become a tool still has every descriptor of this process, and with them the
/// locks of images that another test closes meanwhile: that one's tool waits until it is over.
static ALONE: Mutex<()> = Mutex::new(());

/// What the tool prints; `None` if it is missing or fails.
fn run(directory: &Path, tool: &str, args: &[&str]) -> Option<String> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(tool).args(args).current_dir(directory).output().ok()?;
    let succeeded = output.status.success();
    if !succeeded {
        eprintln!("{tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    succeeded.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A directory, if the tools are there: in memory, where a flush costs nothing.
pub fn directory() -> Option<TempDir> {
    let here = Path::new(".");
    if ["qemu-img", "qemu-io"].iter().any(|tool| run(here, tool, &["--version"]).is_none()) {
        eprintln!("skipped: qemu-img and qemu-io are missing: install qemu-utils");
        return None;
    }
    Some(TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap())
}

/// Runs `qemu-img` in `directory`, which must succeed.
pub fn qemu_img(directory: &TempDir, command: &str) {
    let args: Vec<_> = command.split(' ').collect();
    assert!(run(directory.path(), "qemu-img", &args).is_some(), "{command}");
}

/// Has `qemu-io` carry out `command` on an image in `directory`.
pub fn qemu_io(directory: &TempDir, format: &str, image: &str, command: &str) {
    let args = ["-f", format, "-c", command, image];
    assert!(run(directory.path(), "qemu-io", &args).is_some(), "{command}");
}

/// The whole disk, as QEMU reads it.
pub fn qemu_reads(directory: &TempDir, format: &str, image: &str) -> Vec<u8> {
    qemu_img(directory, &format!("convert -f {format} -O raw {image} seen.raw"));
    fs::read(directory.path().join("seen.raw")).unwrap()
}
