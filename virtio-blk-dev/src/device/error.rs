use crate::image::TopologyError;

/// A [`BlockConfig`](crate::BlockConfig) that no device can be made from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The queue size is not a power of two from 4 to 32768.
    #[error("queue size {0} is not a power of two from 4 to 32768")]
    QueueSize(u16),
    /// `seg_max` is zero, or a request of so many segments would not fit into the queue.
    #[error("seg_max {seg_max} is not from 1 to {limit}, the queue size less header and status")]
    SegMax {
        /// The value asked for.
        seg_max: u32,
        /// The greatest one this queue size allows.
        limit: u32,
    },
    /// `size_max` is smaller than a sector.
    #[error("size_max {0} is smaller than a sector of 512 bytes")]
    SizeMax(u32),
    /// The topology is inconsistent.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// There is no queue, or more than 256.
    #[error("the number of queues is {0}, but should be from 1 to 256")]
    NumQueues(u16),
    /// A command is offered with a limit of zero.
    #[error("a discard, write-zeroes or secure-erase command is offered with a limit of zero")]
    Limits,
    /// The capacity is not a whole number of logical blocks.
    #[error("capacity of {capacity} bytes is not a multiple of the logical block size {block}")]
    Capacity {
        /// The capacity in bytes.
        capacity: u64,
        /// The logical block size in bytes.
        block: u32,
    },
    /// The serial is longer than the 20 bytes that `VIRTIO_BLK_T_GET_ID` has room for.
    #[error("serial {0:?} is longer than 20 bytes")]
    Serial(String),
}
