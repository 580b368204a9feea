use virtio_mmio_dev::VirtioDevice;
use zerocopy::IntoBytes;

use crate::config::{BlockConfig, ConfigSpace, Serial};
use crate::error::ConfigError;
use crate::features::Features;
use crate::params::Params;

/// The control plane of a block device (virtio 1.2 §5.2): what the transport shows the driver.
///
/// One request queue; a [`Worker`](crate::Worker) serves it.
#[derive(Clone, Debug)]
pub struct BlockDevice {
    space: ConfigSpace,
    queue_sizes: [u16; 1],
    features: Features,
    capacity: u64,
    serial: Serial,
}

impl BlockDevice {
    /// A disk of `capacity` bytes. Zero is a disk on which nothing can be read or written.
    ///
    /// # Errors
    /// `config` is no device's, or doesn't fit the capacity; see [`ConfigError`].
    pub fn new(capacity: u64, config: &BlockConfig) -> Result<Self, ConfigError> {
        let mut features = Features::SEG_MAX
            | Features::BLK_SIZE
            | Features::FLUSH
            | Features::INDIRECT_DESC
            | Features::EVENT_IDX
            | Features::VERSION_1;
        features.set(Features::RO, config.read_only);
        features.set(Features::SIZE_MAX, config.size_max.is_some());
        features.set(Features::ACCESS_PLATFORM, config.access_platform);
        Ok(Self {
            space: config.space(capacity)?,
            queue_sizes: [config.queue_size],
            features,
            capacity,
            serial: config.serial,
        })
    }

    /// What a worker checks requests against, under the `negotiated` features.
    pub fn params(&self, negotiated: u64) -> Params {
        Params {
            capacity: self.capacity,
            read_only: self.features.contains(Features::RO),
            write_through: !Features::from_bits_truncate(negotiated).contains(Features::FLUSH),
            serial: self.serial,
        }
    }
}

impl VirtioDevice for BlockDevice {
    fn device_type(&self) -> u32 {
        2
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        self.features.bits()
    }

    /// Behind grants there is no memory but the one that `ACCESS_PLATFORM` addresses name.
    fn required_features(&self) -> u64 {
        (self.features & Features::ACCESS_PLATFORM).bits()
    }

    fn config(&self) -> &[u8] {
        self.space.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_offered_only_with_something_behind_them() {
        let plain = BlockDevice::new(4096, &BlockConfig::default()).unwrap();
        assert_eq!(
            plain.features(),
            1 << 2 | 1 << 6 | 1 << 9 | 1 << 28 | 1 << 29 | 1 << 32,
            "SEG_MAX, BLK_SIZE, FLUSH, INDIRECT_DESC, EVENT_IDX, VERSION_1"
        );
        assert_eq!(plain.required_features(), 0);
        let config = BlockConfig {
            read_only: true,
            size_max: Some(65536),
            access_platform: true,
            ..BlockConfig::default()
        };
        let full = BlockDevice::new(4096, &config).unwrap();
        assert_eq!(full.features(), plain.features() | 1 << 1 | 1 << 5 | 1 << 33);
        assert_eq!(full.required_features(), 1 << 33);
    }

    #[test]
    fn a_driver_without_flush_gets_write_through() {
        let device = BlockDevice::new(4096, &BlockConfig::default()).unwrap();
        assert!(device.params(1 << 32).write_through);
        assert!(!device.params(1 << 32 | 1 << 9).write_through);
    }
}
