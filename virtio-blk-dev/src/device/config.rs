use zerocopy::byteorder::little_endian::{U16, U32, U64};

use super::config_space::ConfigSpace;
use super::error::ConfigError;
use super::limits::Limits;
use super::serial::Serial;
use crate::engine::InOrder;
use crate::image::{Image, Topology};
use crate::sector::SECTOR_SIZE;

/// The configuration of a block device. [`BlockDevice::new`](crate::BlockDevice::new) validates it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// Offer `VIRTIO_BLK_F_RO` and refuse every change of the disk.
    pub read_only: bool,
    /// The identifier the guest sees (`/sys/block/vda/serial` in Linux).
    pub serial: Serial,
    /// Request queues: from 1 to 256, each for a [`Worker`](crate::Worker) of its own.
    pub num_queues: u16,
    /// Entries of each queue: a power of two from 4 to 32768.
    pub queue_size: u16,
    /// Offer `VIRTIO_F_INDIRECT_DESC`, so that a request takes one entry of its queue, for a table of its buffers;
    /// without it, an entry for each buffer. A table costs its access, which in some memories is much.
    pub indirect: bool,
    /// Data buffers a request may have; `None` is as many as the queue has room for beside the
    /// header and the status (a chain, direct or indirect, is never longer than the queue:
    /// virtio 1.2 §2.7.5.3.1).
    pub seg_max: Option<u32>,
    /// Greatest size of one data buffer in bytes; `None` is no limit.
    pub size_max: Option<u32>,
    /// Units and alignments of the storage.
    pub topology: Topology,
    /// Begin with a write cache, which the driver may turn off and on (`writeback`).
    pub write_back: bool,
    /// The commands beyond reads, writes and flushes.
    pub limits: Limits,
    /// Offer `VIRTIO_F_IN_ORDER`, for engines that complete in order. A [`Worker`](crate::Worker) with
    /// another engine doesn't serve the device.
    pub in_order: Option<InOrder>,
}

impl Default for BlockConfig {
    /// A writable disk without a serial, one queue of 256 entries, indirect tables, 512-byte blocks, a write cache,
    /// no further commands.
    fn default() -> Self {
        Self {
            read_only: false,
            serial: Serial::default(),
            num_queues: 1,
            queue_size: 256,
            indirect: true,
            seg_max: None,
            size_max: None,
            topology: Topology::default(),
            write_back: true,
            limits: Limits::default(),
            in_order: None,
        }
    }
}

impl BlockConfig {
    /// The configuration for `image`, with defaults for everything that doesn't depend on it.
    pub fn for_image<I: Image + ?Sized>(image: &I) -> Self {
        Self {
            read_only: image.is_read_only(),
            topology: image.topology(),
            limits: Limits::of(image),
            ..Self::default()
        }
    }

    /// Checks the values, and makes the configuration space of a disk of `capacity` bytes.
    pub(crate) fn space(&self, capacity: u64) -> Result<ConfigSpace, ConfigError> {
        if !(1..=MAX_QUEUES).contains(&self.num_queues) {
            return Err(ConfigError::NumQueues(self.num_queues));
        }
        if !self.queue_size.is_power_of_two() || self.queue_size < 4 {
            return Err(ConfigError::QueueSize(self.queue_size));
        }
        let limit = u32::from(self.queue_size).saturating_sub(2);
        let seg_max = self.seg_max.unwrap_or(limit);
        if seg_max == 0 || seg_max > limit {
            return Err(ConfigError::SegMax { seg_max, limit });
        }
        if let Some(size_max) = self.size_max
            && u64::from(size_max) < SECTOR_SIZE
        {
            return Err(ConfigError::SizeMax(size_max));
        }
        self.limits.check()?;
        let block = self.topology.logical_block_size;
        self.topology.check()?;
        let [physical_block_exp, alignment_offset, min_io_size, opt_io_size] =
            in_blocks(&self.topology);
        check_capacity(capacity, block)?;
        let Limits { discard, write_zeroes, secure_erase, .. } = self.limits;
        let (discard, erase) = (discard.unwrap_or_default(), secure_erase.unwrap_or_default());
        let zeroes = write_zeroes.unwrap_or_default();
        Ok(ConfigSpace {
            capacity: U64::new(capacity / SECTOR_SIZE),
            size_max: U32::new(self.size_max.unwrap_or(0)),
            seg_max: U32::new(seg_max),
            blk_size: U32::new(block),
            physical_block_exp: physical_block_exp as u8,
            alignment_offset: alignment_offset as u8,
            min_io_size: U16::new(min_io_size as u16),
            opt_io_size: U32::new(opt_io_size),
            writeback: self.write_back.into(),
            num_queues: U16::new(self.num_queues),
            max_discard_sectors: U32::new(discard.max_sectors),
            max_discard_seg: U32::new(discard.max_seg),
            discard_sector_alignment: U32::new(discard.alignment_sectors),
            max_write_zeroes_sectors: U32::new(zeroes.max_sectors),
            max_write_zeroes_seg: U32::new(zeroes.max_seg),
            write_zeroes_may_unmap: zeroes.may_unmap.into(),
            max_secure_erase_sectors: U32::new(erase.max_sectors),
            max_secure_erase_seg: U32::new(erase.max_seg),
            secure_erase_sector_alignment: U32::new(erase.alignment_sectors),
            ..ConfigSpace::default()
        })
    }
}

/// `struct virtio_blk_topology` (virtio 1.2 §5.2.4): the physical block's size as a power of two of
/// logical blocks, the alignment offset, the smallest and the best size in logical blocks. What
/// doesn't fit into its field is given as not known.
fn in_blocks(topology: &Topology) -> [u32; 4] {
    let shift = topology.logical_block_size.trailing_zeros();
    let known = |bytes: u32, most: u32| Some(bytes >> shift).filter(|&n| n <= most);
    [
        topology.physical_block_size.trailing_zeros().saturating_sub(shift),
        known(topology.alignment_offset, u8::MAX.into()).unwrap_or(0),
        known(topology.min_io_size, u16::MAX.into()).unwrap_or(0),
        topology.opt_io_size >> shift,
    ]
}

/// More than any kernel uses; each queue takes a thread and memory.
const MAX_QUEUES: u16 = 256;

pub(crate) fn check_capacity(capacity: u64, block: u32) -> Result<(), ConfigError> {
    if capacity.is_multiple_of(u64::from(block)) {
        Ok(())
    } else {
        Err(ConfigError::Capacity { capacity, block })
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::image::TopologyError;
    use crate::{RangeLimits, ZeroesLimits};

    #[test]
    fn the_space_has_the_layout_of_the_specification() {
        let config = BlockConfig {
            size_max: Some(0x1_0000),
            seg_max: Some(100),
            num_queues: 3,
            topology: Topology {
                logical_block_size: 4096,
                physical_block_size: 16384,
                alignment_offset: 8192,
                min_io_size: 65536,
                opt_io_size: 1 << 20,
            },
            limits: Limits {
                discard: Some(RangeLimits { max_sectors: 1, max_seg: 2, alignment_sectors: 3 }),
                write_zeroes: Some(ZeroesLimits { max_sectors: 4, max_seg: 5, may_unmap: true }),
                secure_erase: Some(RangeLimits {
                    max_sectors: 6,
                    max_seg: 7,
                    alignment_sectors: 8,
                }),
                lifetime: true,
            },
            ..BlockConfig::default()
        };
        let space = config.space(0x0102_0304_0506 << 12).unwrap();
        let bytes = space.as_bytes();
        assert_eq!(bytes.len(), 72);
        assert_eq!(bytes[0..8], (0x0102_0304_0506u64 << 3).to_le_bytes());
        assert_eq!(bytes[8..12], 0x1_0000u32.to_le_bytes());
        assert_eq!(bytes[12..16], 100u32.to_le_bytes());
        assert_eq!(bytes[20..24], 4096u32.to_le_bytes());
        assert_eq!(bytes[24..26], [2, 2], "physical_block_exp, alignment_offset");
        assert_eq!(bytes[26..28], 16u16.to_le_bytes(), "min_io_size in blocks");
        assert_eq!(bytes[28..32], 256u32.to_le_bytes(), "opt_io_size in blocks");
        assert_eq!(bytes[32..34], [1, 0], "writeback");
        assert_eq!(bytes[34..36], 3u16.to_le_bytes());
        let words: Vec<u32> = [36, 40, 44, 48, 52, 60, 64, 68]
            .map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
            .into();
        assert_eq!(words, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[56..60], [1, 0, 0, 0], "write_zeroes_may_unmap");
    }

    #[test]
    fn seg_max_leaves_room_for_header_and_status() {
        let space = BlockConfig { queue_size: 64, ..Default::default() }.space(512).unwrap();
        assert_eq!(space.seg_max.get(), 62);
    }

    #[test]
    fn values_that_make_no_device_are_refused() {
        let refused = |config: BlockConfig| config.space(8192).unwrap_err();
        let base = BlockConfig::default;
        for queue_size in [0, 1, 2, 3, 100, 32769] {
            assert_eq!(
                refused(BlockConfig { queue_size, ..base() }),
                ConfigError::QueueSize(queue_size)
            );
        }
        for seg_max in [0, 255, u32::MAX] {
            assert_eq!(
                refused(BlockConfig { seg_max: Some(seg_max), ..base() }),
                ConfigError::SegMax { seg_max, limit: 254 }
            );
        }
        assert_eq!(
            refused(BlockConfig { size_max: Some(511), ..base() }),
            ConfigError::SizeMax(511)
        );
        let with_block = |logical_block_size| BlockConfig {
            topology: Topology {
                logical_block_size,
                physical_block_size: logical_block_size,
                ..Topology::default()
            },
            ..base()
        };
        for block in [0, 256, 513, 0x2_0000] {
            let expected = TopologyError::LogicalBlockSize(block);
            assert_eq!(refused(with_block(block)), ConfigError::Topology(expected));
        }
        let with_physical = |physical_block_size, alignment_offset| {
            let topology =
                Topology { physical_block_size, alignment_offset, ..Topology::default() };
            BlockConfig { topology, ..base() }
        };
        for physical in [0, 256, 513] {
            let expected = TopologyError::PhysicalBlockSize { physical, block: 512 };
            assert_eq!(refused(with_physical(physical, 0)), ConfigError::Topology(expected));
        }
        for offset in [4096, u32::MAX] {
            let expected = TopologyError::AlignmentOffset { offset, physical: 4096 };
            assert_eq!(refused(with_physical(4096, offset)), ConfigError::Topology(expected));
        }
        assert_eq!(
            refused(with_block(16384)),
            ConfigError::Capacity { capacity: 8192, block: 16384 }
        );
        for num_queues in [0, 257] {
            assert_eq!(
                refused(BlockConfig { num_queues, ..base() }),
                ConfigError::NumQueues(num_queues)
            );
        }
    }

    #[test]
    fn a_serial_of_twenty_bytes_has_no_terminator_and_one_more_is_refused() {
        assert_eq!(Serial::new("0123456789abcdefghij").unwrap().as_bytes()[19], b'j');
        assert_eq!(Serial::new("x").unwrap().as_bytes()[1..], [0; 19]);
        let long = "0123456789abcdefghijk";
        assert_eq!(Serial::new(long), Err(ConfigError::Serial(long.into())));
    }
}
