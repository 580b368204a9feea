//! What the driver can read of a device.

use virtio_dev::VirtioDevice;
use xen_virtio_backend::node::DeviceType;

use crate::queues::QUEUES;

/// The most entries of each queue.
const QUEUE_SIZES: [u16; QUEUES] = [64; QUEUES];

/// A device's registers: two queues, and its seed as configuration space (`le64`).
#[derive(Clone, Debug)]
pub struct Digest {
    seed: u64,
    config: [u8; 8],
}

impl Digest {
    /// No type of virtio 1.2 §5.
    pub const DEVICE_TYPE: DeviceType = DeviceType(42);

    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, config: seed.to_le_bytes() }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }
}

impl VirtioDevice for Digest {
    fn device_type(&self) -> u32 {
        Self::DEVICE_TYPE.0
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }
    fn config(&self) -> &[u8] {
        &self.config
    }
}
