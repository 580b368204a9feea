/// Why the values of a [`Topology`](crate::Topology) contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// The logical block size is not a power of two from 512 to 65536.
    #[error("logical block size {0} is not a power of two from 512 to 65536")]
    LogicalBlockSize(u32),
    /// The physical block size is not a power of two, or smaller than the logical one.
    #[error("physical block size {physical} is not a power of two of at least {block}")]
    PhysicalBlockSize {
        /// The value asked for, in bytes.
        physical: u32,
        /// The logical block size in bytes.
        block: u32,
    },
    /// The first whole physical block begins later than a physical block is long.
    #[error("alignment offset {offset} is not less than the physical block size {physical}")]
    AlignmentOffset {
        /// The value asked for, in bytes.
        offset: u32,
        /// The physical block size in bytes.
        physical: u32,
    },
}
