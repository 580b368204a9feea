use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::ConfigError;

/// The unit of capacities and positions, whatever the logical block size (virtio 1.2 §5.2.4).
pub const SECTOR_SIZE: u64 = 512;

/// Bytes of a device identifier (virtio 1.2 §5.2.6, `VIRTIO_BLK_T_GET_ID`).
pub const SERIAL_LEN: usize = 20;

/// What the guest reads as the disk's identifier: at most 20 bytes, padded with NUL, none of
/// which need be a terminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Serial([u8; SERIAL_LEN]);

impl Serial {
    /// The identifier `serial`.
    ///
    /// # Errors
    /// [`ConfigError::Serial`] if it is longer than 20 bytes: a cut one may not be unique.
    pub fn new(serial: &str) -> Result<Self, ConfigError> {
        let mut bytes = [0; SERIAL_LEN];
        bytes
            .get_mut(..serial.len())
            .ok_or_else(|| ConfigError::Serial(serial.to_owned()))?
            .copy_from_slice(serial.as_bytes());
        Ok(Self(bytes))
    }

    /// The 20 bytes, as the guest gets them.
    pub fn as_bytes(&self) -> &[u8; SERIAL_LEN] {
        &self.0
    }
}

/// What a block device offers. Plain data; [`BlockDevice::new`](crate::BlockDevice::new)
/// validates it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// Offer `VIRTIO_BLK_F_RO` and refuse every write.
    pub read_only: bool,
    /// The identifier the guest sees (`/sys/block/vda/serial` in Linux).
    pub serial: Serial,
    /// Entries of the request queue: a power of two from 4 to 32768.
    pub queue_size: u16,
    /// Data buffers a request may have; `None` is as many as the queue has room for beside the
    /// header and the status (a chain, direct or indirect, is never longer than the queue:
    /// virtio 1.2 §2.7.5.3.1).
    pub seg_max: Option<u32>,
    /// Greatest size of one data buffer in bytes; `None` is no limit.
    pub size_max: Option<u32>,
    /// The disk's logical block size in bytes: a power of two from 512 to 65536.
    pub logical_block_size: u32,
    /// Offer `VIRTIO_F_ACCESS_PLATFORM` and insist on it: the guest names its buffers by grants.
    pub access_platform: bool,
}

impl Default for BlockConfig {
    /// A writable disk without a serial, 256 entries, 512-byte blocks, plain addresses.
    fn default() -> Self {
        Self {
            read_only: false,
            serial: Serial::default(),
            queue_size: 256,
            seg_max: None,
            size_max: None,
            logical_block_size: 512,
            access_platform: false,
        }
    }
}

impl BlockConfig {
    /// Checks the values against each other and against a disk of `capacity` bytes, and lays them
    /// out as the guest reads them.
    pub(crate) fn space(&self, capacity: u64) -> Result<ConfigSpace, ConfigError> {
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
        let block = self.logical_block_size;
        if !block.is_power_of_two() || !(512..=65536).contains(&block) {
            return Err(ConfigError::LogicalBlockSize(block));
        }
        if !capacity.is_multiple_of(u64::from(block)) {
            return Err(ConfigError::Capacity { capacity, block });
        }
        Ok(ConfigSpace {
            capacity: U64::new(capacity / SECTOR_SIZE),
            size_max: U32::new(self.size_max.unwrap_or(0)),
            seg_max: U32::new(seg_max),
            blk_size: U32::new(block),
            num_queues: U16::new(1),
            ..ConfigSpace::default()
        })
    }
}

/// `struct virtio_blk_config` (virtio 1.2 §5.2.4) up to `num_queues`; nothing beyond is offered,
/// and the transport reads zeroes there.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ConfigSpace {
    pub(crate) capacity: U64,
    pub(crate) size_max: U32,
    pub(crate) seg_max: U32,
    pub(crate) geometry: [u8; 4],
    pub(crate) blk_size: U32,
    pub(crate) topology: [u8; 8],
    pub(crate) writeback: u8,
    pub(crate) unused: u8,
    pub(crate) num_queues: U16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_has_the_layout_of_the_specification() {
        let config = BlockConfig {
            size_max: Some(0x1_0000),
            seg_max: Some(100),
            logical_block_size: 4096,
            ..BlockConfig::default()
        };
        let space = config.space(0x0102_0304_0506 << 12).unwrap();
        let bytes = space.as_bytes();
        assert_eq!(bytes.len(), 36);
        assert_eq!(bytes[0..8], (0x0102_0304_0506u64 << 3).to_le_bytes());
        assert_eq!(bytes[8..12], 0x1_0000u32.to_le_bytes());
        assert_eq!(bytes[12..16], 100u32.to_le_bytes());
        assert_eq!(bytes[20..24], 4096u32.to_le_bytes());
        assert_eq!(bytes[24..34], [0; 10]);
        assert_eq!(bytes[34..36], 1u16.to_le_bytes());
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
        for block in [0, 256, 513, 0x2_0000] {
            assert_eq!(
                refused(BlockConfig { logical_block_size: block, ..base() }),
                ConfigError::LogicalBlockSize(block)
            );
        }
        assert_eq!(
            refused(BlockConfig { logical_block_size: 16384, ..base() }),
            ConfigError::Capacity { capacity: 8192, block: 16384 }
        );
    }

    #[test]
    fn a_serial_of_twenty_bytes_has_no_terminator_and_one_more_is_refused() {
        assert_eq!(Serial::new("0123456789abcdefghij").unwrap().as_bytes()[19], b'j');
        assert_eq!(Serial::new("x").unwrap().as_bytes()[1..], [0; 19]);
        let long = "0123456789abcdefghijk";
        assert_eq!(Serial::new(long), Err(ConfigError::Serial(long.into())));
    }
}
