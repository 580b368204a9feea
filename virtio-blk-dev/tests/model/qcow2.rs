use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};

use tempfile::TempDir;
use virtio_blk_dev::{Image, ImageFormat, ImagoImage};

use crate::SECTORS;
use crate::common::contents;
use crate::host::{directory, qemu_img, qemu_reads};

/// The disk in an image, by the size of its clusters, as QEMU makes it: once, for all runs.
static NEW: LazyLock<Mutex<HashMap<u32, Option<Vec<u8>>>>> = LazyLock::new(Mutex::default);

/// An image in a directory of its own.
pub struct Qcow2 {
    pub image: Arc<ImagoImage>,
    directory: TempDir,
}

impl Qcow2 {
    /// `None`, and the reason printed, without QEMU's tools.
    pub fn new(cluster_size: u32, read_only: bool) -> Option<Self> {
        let mut all = NEW.lock().unwrap();
        let new = all.entry(cluster_size).or_insert_with(|| make(cluster_size)).as_ref()?;
        let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let path = directory.path().join("disk.qcow2");
        fs::write(&path, new).unwrap();
        let image = ImagoImage::open(&path, ImageFormat::Qcow2, read_only).unwrap();
        Some(Self { image: Arc::new(image), directory })
    }

    /// The disk as QEMU reads it out of the file as this is now, which must be in order. With
    /// `flush`, what is written need not be there before.
    pub fn as_qemu_reads(&self, flush: bool) -> Vec<u8> {
        if flush {
            self.image.flush().unwrap();
        }
        let path = |name| -> PathBuf { self.directory.path().join(name) };
        // The image itself is locked.
        fs::copy(path("disk.qcow2"), path("copy.qcow2")).unwrap();
        qemu_img(&self.directory, "check -q -f qcow2 copy.qcow2");
        qemu_reads(&self.directory, &path("copy.qcow2"))
    }
}

fn make(cluster_size: u32) -> Option<Vec<u8>> {
    let directory = directory()?;
    fs::write(directory.path().join("disk.raw"), contents(SECTORS)).unwrap();
    let options = format!("-o cluster_size={cluster_size}");
    qemu_img(&directory, &format!("convert -f raw -O qcow2 {options} disk.raw disk.qcow2"));
    Some(fs::read(directory.path().join("disk.qcow2")).unwrap())
}
