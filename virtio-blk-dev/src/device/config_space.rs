use std::mem::offset_of;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct virtio_blk_config` (virtio 1.2 §5.2.4) up to `secure_erase_sector_alignment`; nothing
/// beyond is offered, and the transport reads zeroes there.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ConfigSpace {
    pub(super) capacity: U64,
    pub(super) size_max: U32,
    pub(super) seg_max: U32,
    pub(super) geometry: [u8; 4],
    pub(super) blk_size: U32,
    pub(super) physical_block_exp: u8,
    pub(super) alignment_offset: u8,
    pub(super) min_io_size: U16,
    pub(super) opt_io_size: U32,
    pub(super) writeback: u8,
    pub(super) unused0: u8,
    pub(super) num_queues: U16,
    pub(super) max_discard_sectors: U32,
    pub(super) max_discard_seg: U32,
    pub(super) discard_sector_alignment: U32,
    pub(super) max_write_zeroes_sectors: U32,
    pub(super) max_write_zeroes_seg: U32,
    pub(super) write_zeroes_may_unmap: u8,
    pub(super) unused1: [u8; 3],
    pub(super) max_secure_erase_sectors: U32,
    pub(super) max_secure_erase_seg: U32,
    pub(super) secure_erase_sector_alignment: U32,
}

impl ConfigSpace {
    /// Where `writeback` is, the one field a driver may write.
    pub(super) const WRITEBACK: usize = offset_of!(Self, writeback);
}
