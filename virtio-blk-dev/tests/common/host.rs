//! The host's tools and file systems, where the tests may use them.
#![allow(dead_code, unreachable_pub)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub const KIB: u64 = 1024;
pub const MIB: u64 = 1024 * KIB;

/// Runs a tool; its standard output, or `None` if it is missing or fails, which a failed test shows.
pub fn run<S: AsRef<OsStr>>(tool: &str, args: impl IntoIterator<Item = S>) -> Option<String> {
    let mut command = Command::new(tool);
    let output = match command.args(args).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("{command:?} can't be run: {error}");
            return None;
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Some(text(&output.stdout));
    }
    eprintln!("{command:?} ended with {}: {}", output.status, text(&output.stderr));
    None
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
        Self::with(&["--sector-size", &block.to_string()], file)
    }

    /// Which the kernel takes for read-only.
    pub fn read_only(file: &Path) -> Option<Self> {
        Self::with(&["--read-only"], file)
    }

    fn with(options: &[&str], file: &Path) -> Option<Self> {
        let device = run("losetup", [&["--find", "--show"], options, &[file.to_str()?]].concat());
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

/// Directories on the file systems at hand: that of temporary files, and one in memory.
pub fn directories() -> Vec<TempDir> {
    let mut directories = vec![TempDir::new().unwrap()];
    directories.extend(TempDir::new_in("/dev/shm"));
    directories
}

/// A file of `len` bytes, none of which is zero.
pub fn file(directory: &Path, len: u64) -> PathBuf {
    let path = directory.join("disk.img");
    fs::write(&path, noise(len)).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    path
}

pub fn noise(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n / 13 % 255 + 1) as u8).collect()
}

pub fn grow(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// Bytes of storage.
pub fn stored(path: &Path) -> u64 {
    File::open(path).unwrap().sync_all().unwrap();
    fs::metadata(path).unwrap().blocks() * 512
}

/// A directory, if QEMU's tools are there: in memory, where a flush costs nothing.
pub fn directory() -> Option<TempDir> {
    if run("qemu-img", ["--version"]).is_none() || run("qemu-io", ["--version"]).is_none() {
        skip("qemu-img and qemu-io are missing: install qemu-utils");
        return None;
    }
    Some(TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap())
}

/// Runs `qemu-img` in `directory`, which must succeed.
pub fn qemu_img(directory: &TempDir, command: &str) {
    let script = format!("cd '{}' && qemu-img {command}", directory.path().display());
    assert!(run("sh", ["-c", &script]).is_some(), "{script}");
}

pub fn qemu_io(path: &Path, format: &str, command: &str) {
    let path = path.to_str().unwrap();
    assert!(run("qemu-io", ["-f", format, "-c", command, path]).is_some(), "{command}");
}

/// The disk's contents, as QEMU sees them.
pub fn qemu_reads(directory: &TempDir, path: &Path) -> Vec<u8> {
    let raw = directory.path().join("seen.raw");
    qemu_img(directory, &format!("convert -O raw '{}' seen.raw", path.display()));
    fs::read(raw).unwrap()
}

/// Numbers by xorshift.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
