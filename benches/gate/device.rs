//! The block device of the guest.

use virtio_blk_dev::{BlockConfig, BlockDevice, Limits, RangeLimits};
use virtio_mmio_dev::MmioTransport;

use crate::guest::QUEUE_SIZE;

/// Bytes of the disk: what the guest's requests reach.
pub(crate) const CAPACITY: u64 = 4 << 20;

/// A device that has everything the guest asks for.
pub(crate) fn device() -> BlockDevice {
    let discard = RangeLimits { max_sectors: 1 << 20, max_seg: 1, alignment_sectors: 8 };
    let config = BlockConfig {
        queue_size: QUEUE_SIZE,
        limits: Limits { discard: Some(discard), ..Limits::default() },
        ..BlockConfig::default()
    };
    BlockDevice::new(CAPACITY, &config).expect("a device")
}

/// Its registers; `granted` if the guest's memory is.
pub(crate) fn transport(granted: bool) -> MmioTransport<BlockDevice> {
    MmioTransport::builder(device(), || {}).access_platform(granted).build().expect("a transport")
}
