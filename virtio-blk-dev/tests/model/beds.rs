use std::sync::Arc;

use tempfile::NamedTempFile;
use virtio_blk_dev::fake::{FakeEngine, FakeImage};
use virtio_blk_dev::{Commands, Engine, Image, RawImage, SyncEngine, UringConfig, UringEngine};

use crate::SECTORS;
use crate::common::*;
use crate::expect::WEAR;
#[cfg(feature = "imago")]
use crate::qcow2::Qcow2;

/// What is behind a disk.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// An image in memory that can do everything.
    Memory,
    /// A file.
    Raw,
    /// A file, most of which says where the disk's bytes are.
    #[cfg(feature = "imago")]
    Qcow2 { cluster_size: u32 },
}

/// What carries out I/O.
#[derive(Clone, Copy, Debug)]
pub enum EngineKind {
    Sync,
    /// Late, and in an order that depends on the seed.
    Late(u64),
    Uring {
        inline: bool,
    },
}

/// A disk for one run.
pub struct Bed {
    pub image: Arc<dyn Image>,
    pub engine: Box<dyn Engine>,
    pub backing: Backing,
}

/// Where the contents can be looked at, past all engines.
pub enum Backing {
    Memory(Arc<FakeImage>),
    File(NamedTempFile),
    #[cfg(feature = "imago")]
    Qcow2(Qcow2),
}

impl Backing {
    /// Those that are there at any time, if they can be had at little cost.
    pub fn contents(&self) -> Option<Vec<u8>> {
        match self {
            Self::Memory(image) => Some(image.bytes()),
            Self::File(file) => Some(std::fs::read(file.path()).unwrap()),
            #[cfg(feature = "imago")]
            Self::Qcow2(_) => None,
        }
    }

    /// Those at the end, whatever the cost; of a disk with a cache, after a flush.
    pub fn last_contents(&self, cached: bool) -> Vec<u8> {
        match self {
            #[cfg(feature = "imago")]
            Self::Qcow2(qcow2) => qcow2.as_qemu_reads(cached),
            _ => self.contents().unwrap(),
        }
    }

    /// Those that no loss of power takes away, if that can be told.
    pub fn stable(&self) -> Option<Vec<u8>> {
        match self {
            Self::Memory(image) => Some(image.stable()),
            _ => None,
        }
    }
}

impl Bed {
    /// `None`, and the reason printed, where the kernel has no io_uring, or there are no tools of
    /// QEMU's.
    pub fn new(format: Format, engine: EngineKind, read_only: bool) -> Option<Self> {
        match format {
            Format::Memory => {
                let image = FakeImage::new(contents(SECTORS), read_only)
                    .with_commands(Commands { lifetime: true, ..COMMANDS })
                    .with_lifetime(WEAR);
                let image = Arc::new(image);
                let engine = portable(&(Arc::clone(&image) as Arc<dyn Image>), engine);
                Some(Self { image: image.clone(), engine, backing: Backing::Memory(image) })
            }
            Format::Raw => {
                let file = NamedTempFile::new().unwrap();
                std::fs::write(file.path(), contents(SECTORS)).unwrap();
                let image = Arc::new(RawImage::open(file.path(), read_only).unwrap());
                let engine = match engine {
                    EngineKind::Uring { inline } => {
                        let config = UringConfig { depth: 4, inline, ..UringConfig::default() };
                        let engine = UringEngine::with_config(Arc::clone(&image), &config)
                            .map_err(|error| eprintln!("skipped: {error}"))
                            .ok()?;
                        Box::new(engine)
                    }
                    other => portable(&(Arc::clone(&image) as Arc<dyn Image>), other),
                };
                Some(Self { image, engine, backing: Backing::File(file) })
            }
            #[cfg(feature = "imago")]
            Format::Qcow2 { cluster_size } => {
                let qcow2 = Qcow2::new(cluster_size, read_only)?;
                let image: Arc<dyn Image> = Arc::clone(&qcow2.image) as Arc<dyn Image>;
                let engine = portable(&image, engine);
                Some(Self { image, engine, backing: Backing::Qcow2(qcow2) })
            }
        }
    }
}

/// An engine for any image.
fn portable(image: &Arc<dyn Image>, engine: EngineKind) -> Box<dyn Engine> {
    let image = Arc::clone(image);
    match engine {
        EngineKind::Late(seed) => Box::new(FakeEngine::new(image, seed).unwrap()),
        EngineKind::Sync | EngineKind::Uring { .. } => Box::new(SyncEngine::new(image)),
    }
}
