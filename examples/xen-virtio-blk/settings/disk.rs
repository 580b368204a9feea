//! How one disk is served.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use virtio_blk_dev::{ImageFormat, RateLimits, Serial};
use virtio_worker::CpuList;

use crate::engine_kind::EngineKind;

/// How the guest's disk begins to cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// A write is stable when the guest has flushed it.
    Writeback,
    /// A write is stable when it is answered.
    Writethrough,
}

/// How one disk is served, beyond what its nodes in xenstore say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskSettings {
    /// What the guest reads as its identifier; the device number if none is set.
    pub serial: Option<Serial>,
    /// What the image's bytes mean.
    pub format: ImageFormat,
    /// What carries out its I/O.
    pub engine: EngineKind,
    /// Around the page cache.
    pub direct: bool,
    /// What the image's contents were made for, in bytes; otherwise the storage's own.
    pub logical_block_size: Option<u32>,
    /// Request queues, each with a thread.
    pub queues: u16,
    /// Descriptors of each queue.
    pub queue_size: u16,
    /// As long as the guest doesn't choose.
    pub cache: Cache,
    /// Of all queues together.
    pub limits: RateLimits,
    /// Where the queues' threads run.
    pub cpus: CpuList,
    /// How long a queue's thread looks for work at most before it sleeps.
    pub poll: Duration,
    /// Discards and zeroes are offered, if the toolstack has them enabled.
    pub discard: bool,
}

impl Default for DiskSettings {
    /// The synchronous engine, which works everywhere, and one queue.
    fn default() -> Self {
        Self {
            serial: None,
            format: ImageFormat::Raw,
            engine: EngineKind::Sync,
            direct: false,
            logical_block_size: None,
            queues: 1,
            queue_size: 256,
            cache: Cache::Writeback,
            limits: RateLimits::default(),
            cpus: CpuList::default(),
            poll: Duration::from_micros(50),
            discard: true,
        }
    }
}
