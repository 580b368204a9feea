//! What can be wrong with a device, a saved state or a queue's addresses.

/// A device description or a saved state that the transport can't take.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The device offers features of the rings or the transport that are not a
    /// [`DEVICE`](crate::feature::DEVICE)'s to offer.
    #[error(
        "the device offers features that are the transport's to offer, or not implemented: {0:#x}"
    )]
    UnsupportedFeatures(u64),
    /// A queue's largest size is not a power of two of at most 32768.
    #[error("queue {index}: {size} is not a queue size (a power of two, at most 32768)")]
    QueueSize {
        /// The queue.
        index: usize,
        /// Its size as the device gives it.
        size: u16,
    },
    /// More queues than a queue index can name.
    #[error("{0} queues, at most 65536 can be named")]
    TooManyQueues(usize),
    /// A saved state that is not one of this device.
    #[error("the saved state does not fit the device: {0}")]
    State(&'static str),
}

/// A queue the driver set up where no ring can be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueError {
    /// The size is not a power of two of at most 32768.
    #[error("queue {index}: {size} is not a queue size (a power of two, at most 32768)")]
    Size {
        /// The queue.
        index: u16,
        /// Its size.
        size: u16,
    },
    /// A part of the ring is not aligned as virtio 1.2 §2.7 asks.
    #[error("queue {index}: {part} at {addr:#x} is not aligned to {align}")]
    Alignment {
        /// The queue.
        index: u16,
        /// Which part.
        part: &'static str,
        /// Its address.
        addr: u64,
        /// The alignment asked for, in bytes.
        align: u64,
    },
    /// A part of the ring runs past the end of the address space.
    #[error("queue {index}: {part} at {addr:#x} of {len} bytes wraps around")]
    Overflow {
        /// The queue.
        index: u16,
        /// Which part.
        part: &'static str,
        /// Its address.
        addr: u64,
        /// Its length in bytes.
        len: usize,
    },
    /// A part of the ring can't be read or written.
    #[error("queue {index}: {part} at {addr:#x} of {len} bytes is not accessible")]
    Inaccessible {
        /// The queue.
        index: u16,
        /// Which part.
        part: &'static str,
        /// Its address.
        addr: u64,
        /// Its length in bytes.
        len: usize,
    },
}
