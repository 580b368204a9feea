//! What breaks a queue.

use super::area::RingInaccessible;

/// How a driver broke the rules of its ring. The queue is broken from then on, and
/// `DEVICE_NEEDS_RESET` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingFault {
    /// The available index moved by more than the queue's size.
    #[error("avail.idx is {0} ahead of the device, which is more than the queue size")]
    AvailIndex(u16),
    /// An available entry or a `next` field names no descriptor.
    #[error("descriptor {0} is outside the descriptor table")]
    DescriptorIndex(u16),
    /// A descriptor is the head of two chains in flight.
    #[error("descriptor {0} was made available while it is in flight")]
    HeadInFlight(u16),
    /// A chain of more descriptors than the queue could have: maybe a loop.
    #[error("a chain has more descriptors than the largest queue size")]
    ChainTooLong,
    /// The buffers of a chain add up to 2³² bytes or more.
    #[error("a chain's buffers add up to 4 GiB or more")]
    ChainTooLarge,
    /// A device-readable buffer after a device-writable one.
    #[error("a readable buffer follows a writable one")]
    Order,
    /// An indirect descriptor that wasn't negotiated, or in an indirect table, or with `NEXT`.
    #[error(
        "an indirect descriptor stands inside an indirect table, has a next one, or was not negotiated"
    )]
    Indirect,
    /// An indirect table whose length is 0 or not a multiple of 16.
    #[error("an indirect table has {0} bytes, which is not a positive multiple of 16")]
    TableLength(u32),
    /// An indirect table that can't be read.
    #[error("the indirect table at {0:#x} can't be read")]
    Table(u64),
    /// A part of the ring that could be accessed once no longer can be.
    #[error("the ring itself can't be accessed any more")]
    Ring,
    /// The device completed a chain that isn't of this queue: the device's mistake.
    #[error("descriptor {0} was completed but is not in flight")]
    NotInFlight(u16),
    /// The device serves the queue no more, through no fault of its driver.
    #[error("the device has stopped serving the queue")]
    GivenUp,
}

impl From<RingInaccessible> for RingFault {
    fn from(_: RingInaccessible) -> Self {
        Self::Ring
    }
}
