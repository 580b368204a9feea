//! What carries out the I/O of disks, as the operator names it.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use virtio_blk_dev::{SyncEngine, UringEngine};

/// What carries out a queue's I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// The kernel does many operations of a queue at once.
    #[value(name = "io_uring")]
    IoUring,
    /// Each operation is done where it stands.
    Sync,
}

impl EngineKind {
    /// Open file descriptions that each engine on a writable raw image uses. The synchronous engine, which
    /// may replace another, needs no more than that.
    pub(crate) const fn descriptions(self) -> u16 {
        match self {
            Self::IoUring => UringEngine::DESCRIPTIONS,
            Self::Sync => SyncEngine::DESCRIPTIONS,
        }
    }
}
