//! What a frontend may not ask for: the message is answered so, and the session goes on.

use std::io;

use vhost::vhost_user::Error;

use crate::{memory::MemoryError, ring::RingError};

/// As many as Linux's vhost takes by default (`max_mem_regions`); each costs a mapping.
pub(crate) const MEMORY_SLOTS: u64 = 64;

/// What a frontend may not ask for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no queue {index}: the device has {queues}")]
    NoQueue { index: u32, queues: usize },
    #[error("queue {index}: {size} descriptors, where 1 to {most} are possible")]
    QueueSize { index: u32, size: u32, most: u16 },
    #[error("queue {index}: {base:#x} is no position in a split ring")]
    Base { index: u32, base: u32 },
    #[error("queue {index} without a kick descriptor: it would have to be polled without end")]
    NoKick { index: u8 },
    #[error("a descriptor that was sent can't be used: {0}")]
    Descriptor(#[from] io::Error),
    #[error("more than {MEMORY_SLOTS} memory regions")]
    Slots,
    #[error("the device has an owner already")]
    Owned,
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::ReqHandlerError(io::Error::other(refusal))
    }
}
