//! A toolstack with images.

use std::{
    fs::File,
    ops::{Deref, DerefMut},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use tempfile::TempDir;
use xen_virtio_backend::{Backend, MapBudget, fake::FakeToolstack};
use xen_virtio_blk::{disks::Disks, settings::Settings};

/// A dom0 with images, and a backend of disks if nothing else is said.
pub struct Host<B: Backend = Disks> {
    toolstack: FakeToolstack<B>,
    images: TempDir,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    pub fn new() -> Self {
        Self::with_settings(Settings::default())
    }

    pub fn with_settings(settings: Settings) -> Self {
        let budget = settings.map_budget();
        Self::with_backend(budget, move || Disks::new(settings.clone()))
    }
}

impl<B: Backend> Host<B> {
    /// With a backend of any kind.
    pub fn with_backend(map_budget: MapBudget, make_backend: impl Fn() -> B + 'static) -> Self {
        let toolstack = FakeToolstack::with_map_budget(map_budget, make_backend);
        Self { toolstack, images: TempDir::new().unwrap() }
    }

    /// An image of `len` bytes, each sector of which holds its number.
    pub fn image(&self, name: &str, len: u64) -> PathBuf {
        let path = self.images.path().join(name);
        let file = File::create(&path).unwrap();
        for sector in 0..len / 512 {
            file.write_all_at(&sector_pattern(sector), sector * 512).unwrap();
        }
        file.set_len(len).unwrap();
        path
    }
}

impl<B: Backend> Deref for Host<B> {
    type Target = FakeToolstack<B>;

    fn deref(&self) -> &FakeToolstack<B> {
        &self.toolstack
    }
}

impl<B: Backend> DerefMut for Host<B> {
    fn deref_mut(&mut self) -> &mut FakeToolstack<B> {
        &mut self.toolstack
    }
}

/// What [`Host::image`] puts into a sector.
pub fn sector_pattern(sector: u64) -> [u8; 512] {
    let mut bytes = [sector as u8; 512];
    bytes[..8].copy_from_slice(&sector.to_le_bytes());
    bytes
}
