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
    #[error("queue {index} has {size} descriptors, but should have 1 to {most}")]
    QueueSize { index: u32, size: u32, most: u16 },
    #[error(
        "queue {index}: the base {base:#x} is not a position in a split ring, which has 16 bits"
    )]
    Base { index: u32, base: u32 },
    #[error("queue {index} has no kick descriptor, and is not served by polling: send an eventfd")]
    NoKick { index: u8 },
    #[error("a file descriptor that was sent can't be used: send an eventfd")]
    Descriptor(#[from] io::Error),
    #[error("the memory table has more than {MEMORY_SLOTS} regions")]
    Slots,
    #[error("VHOST_USER_SET_OWNER was sent before in this connection")]
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
