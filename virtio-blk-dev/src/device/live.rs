use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::durability::Durability;

/// What can change while the device is in use.
#[derive(Debug)]
pub(crate) struct Live {
    capacity: AtomicU64,
    write_back: AtomicBool,
    durability: Arc<Durability>,
}

impl Live {
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            capacity: AtomicU64::new(capacity),
            write_back: AtomicBool::new(false),
            durability: Arc::default(),
        }
    }

    /// Shared by all queues.
    pub(crate) fn durability(&self) -> &Arc<Durability> {
        &self.durability
    }

    /// The disk's size in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.capacity.store(bytes, Ordering::Relaxed);
    }

    /// Whether writes may complete before they are on stable storage (virtio 1.2 §5.2.6.2).
    pub(crate) fn write_back(&self) -> bool {
        self.write_back.load(Ordering::Acquire)
    }

    pub(crate) fn set_write_back(&self, on: bool) {
        self.write_back.store(on, Ordering::Release);
    }
}
