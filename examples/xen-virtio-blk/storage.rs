//! The image behind a disk, and the engines that work on it.

use std::{
    io,
    path::Path,
    sync::{Arc, LazyLock},
};

use virtio_blk_dev::{
    BouncePool, Engine, Image, ImageFiles, ImageFormat, OpenError, RawImage, RawOptions, RingPool,
    SyncEngine, UringConfig, UringEngine, UringError,
};

use crate::{engine_kind::EngineKind, settings::DiskSettings};

/// What all disks of this process with direct I/O copy their data through.
static BOUNCE: LazyLock<BouncePool> = LazyLock::new(|| BouncePool::new(64 << 20));

/// An open image.
#[derive(Clone)]
pub enum Storage {
    /// A file or block device whose bytes are the disk's.
    Raw {
        /// The file or device.
        image: Arc<RawImage>,
        /// What its engines take memory from.
        bounce: BouncePool,
        /// Where its engines take io_urings from, if they can't create any.
        rings: Option<RingPool>,
    },
    /// An image that is known by what it can do only.
    Other(Arc<dyn Image>),
}

impl Storage {
    /// Opens and locks the image at `path` as `settings` say, once for each queue and more. This takes the
    /// privileges and paths that [`new`](Self::new) doesn't.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn files(
        path: &Path,
        read_only: bool,
        settings: &DiskSettings,
    ) -> Result<ImageFiles, OpenError> {
        match settings.format {
            ImageFormat::Raw => {
                let spares = settings.queues.saturating_mul(settings.engine.descriptions());
                let mut options =
                    RawOptions::new().read_only(read_only).direct(settings.direct).spares(spares);
                if let Some(bytes) = settings.logical_block_size {
                    options = options.logical_block_size(bytes);
                }
                options.open_files(path)
            }
            format => format.open_files(path, read_only),
        }
    }

    /// The image of these files. An image that isn't raw is read for this, and checked if it can be written.
    /// Engines take their io_urings from `rings`, or create them without.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn new(files: ImageFiles, rings: Option<&RingPool>) -> Result<Self, OpenError> {
        match files.format() {
            ImageFormat::Raw => {
                let image = Arc::new(RawImage::from_files(files)?);
                let (bounce, rings) = (BOUNCE.share(BouncePool::DISK), rings.cloned());
                Ok(Self::Raw { image, bounce, rings })
            }
            _ => Ok(Self::Other(files.image()?)),
        }
    }

    /// What it can do.
    pub fn image(&self) -> &dyn Image {
        match self {
            Self::Raw { image, .. } => image.as_ref(),
            Self::Other(image) => image.as_ref(),
        }
    }

    /// An engine for one queue; the synchronous one where no other can be had, and why.
    pub fn engine(&self, kind: EngineKind) -> (Box<dyn Engine>, Option<UringError>) {
        match (self, kind) {
            (Self::Raw { image, bounce, rings }, EngineKind::IoUring) => {
                // Foreign pages can't be pinned, and a granted one must be free of references when
                // its request is answered: data goes through the engine's own buffers.
                let config = UringConfig {
                    direct_into_guest: false,
                    bounce: bounce.clone(),
                    rings: rings.clone(),
                    ..UringConfig::default()
                };
                match UringEngine::with_config(Arc::clone(image), &config) {
                    Ok(engine) => (Box::new(engine), None),
                    Err(error) => (Box::new(SyncEngine::new(Arc::clone(image))), Some(error)),
                }
            }
            (Self::Raw { image, .. }, EngineKind::Sync) => {
                (Box::new(SyncEngine::new(Arc::clone(image))), None)
            }
            (Self::Other(image), _) => (Box::new(SyncEngine::new(Arc::clone(image))), None),
        }
    }

    /// The size in bytes, asked of the host anew where an image can be resized under its guest.
    pub fn refresh_capacity(&self) -> io::Result<u64> {
        match self {
            Self::Raw { image, .. } => image.refresh_capacity(),
            Self::Other(image) => Ok(image.capacity()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_open_once_more_for_each_file_of_a_queue_s_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let descriptors = |engine, read_only| {
            let settings = DiskSettings { engine, queues: 3, ..DiskSettings::default() };
            let files = Storage::files(file.path(), read_only, &settings).unwrap();
            files.into_parts().1.len()
        };
        assert_eq!(descriptors(EngineKind::Sync, false), 1 + 3);
        assert_eq!(descriptors(EngineKind::IoUring, false), 1 + 6);
        assert_eq!(descriptors(EngineKind::IoUring, true), 1);
    }
}
