//! Images that QEMU's tools have open, too. Needs qemu-utils; without them, nothing is checked.
#![cfg(all(feature = "test-utils", not(miri)))]

#[path = "common/host.rs"]
mod host;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use host::{run, skip};
use tempfile::TempDir;
use virtio_blk_dev::{OpenError, RawImage};

fn disk() -> Option<(TempDir, PathBuf)> {
    if run("qemu-io", ["--version"]).is_none() {
        skip("qemu-io is missing: install qemu-utils");
        return None;
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    Some((directory, path))
}

/// A `qemu-io` that has the image open.
struct QemuIo(Child);

impl QemuIo {
    fn open(path: &Path, read_only: bool) -> Self {
        let mode: &[&str] = if read_only { &["-r"] } else { &[] };
        let mut child = Command::new("qemu-io")
            .args(mode)
            .args(["-f", "raw"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("1 MiB")), "qemu-io opened it");
        Self(child)
    }
}

impl Drop for QemuIo {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Whether QEMU gets at the image.
fn qemu_opens(path: &Path, read_only: bool) -> bool {
    let mode: &[&str] = if read_only { &["-r"] } else { &[] };
    let path = path.to_str().unwrap();
    run("qemu-io", [mode, &["-f", "raw", "-c", "read 0 512", path]].concat()).is_some()
}

fn in_use(path: &Path, read_only: bool) -> bool {
    match RawImage::open(path, read_only) {
        Ok(_) => false,
        Err(OpenError::InUse { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_image_that_qemu_has_is_not_taken() {
    let Some((_directory, path)) = disk() else { return };
    let writer = QemuIo::open(&path, false);
    assert!(in_use(&path, false));
    assert!(in_use(&path, true));
    drop(writer);
    let reader = QemuIo::open(&path, true);
    assert!(in_use(&path, false));
    assert!(!in_use(&path, true));
    drop(reader);
    assert!(!in_use(&path, false));
}

#[test]
fn qemu_does_not_take_an_image_that_is_ours() {
    let Some((_directory, path)) = disk() else { return };
    let writer = RawImage::open(&path, false).unwrap();
    assert!(!qemu_opens(&path, false));
    assert!(!qemu_opens(&path, true));
    let path_text = path.to_str().unwrap();
    assert!(run("qemu-img", ["info", "-U", path_text]).is_some(), "looking is free");
    drop(writer);
    let reader = RawImage::open(&path, true).unwrap();
    assert!(!qemu_opens(&path, false));
    assert!(qemu_opens(&path, true));
    drop(reader);
    assert!(qemu_opens(&path, false));
}
