//! The engine of a queue, which outlives the queue's thread: a guest may reset its device as often as
//! it likes.

use std::sync::Arc;

use backend_process::chain;
use tracing::warn;
use virtio_blk_dev::{RawImage, SyncEngine, UringConfig, UringEngine};
use virtio_worker::LogLimit;

use crate::{args::EngineKind, device::Device};

/// What carries out a queue's I/O, made for a queue of so many descriptors.
pub(crate) struct QueueEngine {
    pub(crate) queue_size: u16,
    pub(crate) kind: Kind,
}

/// Told apart once a thread, and not once an operation.
pub(crate) enum Kind {
    Uring(Box<UringEngine>),
    Sync(SyncEngine<RawImage>),
}

impl QueueEngine {
    /// The engine that the device's settings ask for, or the one that works everywhere.
    pub(crate) fn new(device: &Device, queue_size: u16, limit: &LogLimit) -> Self {
        let image = Arc::clone(&device.image);
        if device.engine == EngineKind::IoUring {
            let config = UringConfig {
                depth: queue_size,
                bounce: device.bounce.clone(),
                ..UringConfig::default()
            };
            match UringEngine::with_config(Arc::clone(&image), &config) {
                Ok(engine) => return Self { queue_size, kind: Kind::Uring(Box::new(engine)) },
                Err(error) => {
                    if let Some(dropped) = limit.allow() {
                        warn!(error = %chain(&error), dropped, "io_uring can't be used: requests are carried out one after the other (--engine sync)");
                    }
                }
            }
        }
        Self { queue_size, kind: Kind::Sync(SyncEngine::new(image)) }
    }
}
