use std::sync::Arc;

use virtio_dev::{ConfigWrite, VirtioDevice};
use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::U64;

use super::config::{BlockConfig, check_capacity};
use super::config_space::ConfigSpace;
use super::durability::Durability;
use super::error::ConfigError;
use super::features::Features;
use super::live::Live;
use super::params::Params;
use crate::sector::SECTOR_SIZE;

/// The control plane of a block device (virtio 1.2 §5.2): features and configuration space.
///
/// Each of its request queues is served by a [`Worker`](crate::Worker).
#[derive(Debug)]
pub struct BlockDevice {
    space: ConfigSpace,
    queue_sizes: Vec<u16>,
    features: Features,
    negotiated: Features,
    config: BlockConfig,
    live: Arc<Live>,
}

impl BlockDevice {
    /// A disk of `capacity` bytes, which may be zero.
    ///
    /// # Errors
    /// `config` is invalid, or doesn't fit the capacity; see [`ConfigError`].
    pub fn new(capacity: u64, config: &BlockConfig) -> Result<Self, ConfigError> {
        let space = config.space(capacity)?;
        Ok(Self {
            space,
            queue_sizes: vec![config.queue_size; config.num_queues.into()],
            features: offered(config),
            negotiated: Features::empty(),
            config: config.clone(),
            live: Arc::new(Live::new(capacity)),
        })
    }

    /// The parameters for the workers of all queues.
    pub fn params(&self) -> Params {
        Params {
            live: Arc::clone(&self.live),
            read_only: self.config.read_only,
            serial: self.config.serial,
            limits: self.config.limits,
            in_order: self.config.in_order.is_some(),
        }
    }

    /// The disk's size in bytes.
    pub fn capacity(&self) -> u64 {
        self.live.capacity()
    }

    /// Changes the disk's size, for requests from now on and in the configuration space. To notify the
    /// driver, call [`ControlPlane::config_changed`](virtio_dev::ControlPlane::config_changed).
    ///
    /// # Errors
    /// [`ConfigError::Capacity`]: not a whole number of logical blocks.
    pub fn set_capacity(&mut self, bytes: u64) -> Result<(), ConfigError> {
        check_capacity(bytes, self.config.topology.logical_block_size)?;
        self.live.set_capacity(bytes);
        self.space.capacity = U64::new(bytes / SECTOR_SIZE);
        Ok(())
    }

    /// Whether writes may complete before they are stable: the driver has negotiated to flush, and hasn't
    /// turned the cache off.
    pub fn is_write_back(&self) -> bool {
        self.live.write_back()
    }

    /// Whether flushes can still succeed, to be reported to the operator. Resets don't change it.
    pub fn durability(&self) -> Arc<Durability> {
        Arc::clone(self.live.durability())
    }

    /// Virtio 1.2 §5.2.6.2: with `CONFIG_WCE` the field decides; without, a driver that took
    /// `FLUSH` knows of a cache, and any other must never meet one.
    fn update_cache(&self) {
        let on = if self.negotiated.contains(Features::CONFIG_WCE) {
            self.space.writeback != 0
        } else {
            self.negotiated.contains(Features::FLUSH) && self.config.write_back
        };
        self.live.set_write_back(on);
    }
}

/// The features to offer: only what the configuration has.
fn offered(config: &BlockConfig) -> Features {
    let mut features = Features::SEG_MAX
        | Features::BLK_SIZE
        | Features::FLUSH
        | Features::TOPOLOGY
        | Features::CONFIG_WCE
        | Features::EVENT_IDX;
    let limits = &config.limits;
    let writable = !config.read_only;
    for (feature, on) in [
        (Features::RO, config.read_only),
        (Features::INDIRECT_DESC, config.indirect),
        (Features::SIZE_MAX, config.size_max.is_some()),
        (Features::MQ, config.num_queues > 1),
        (Features::DISCARD, writable && limits.discard.is_some()),
        (Features::WRITE_ZEROES, writable && limits.write_zeroes.is_some()),
        (Features::SECURE_ERASE, writable && limits.secure_erase.is_some()),
        (Features::LIFETIME, limits.lifetime),
        (Features::IN_ORDER, config.in_order.is_some()),
    ] {
        features.set(feature, on);
    }
    features
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

    fn accept_features(&mut self, driver: u64) {
        self.negotiated = Features::from_bits_truncate(driver);
        // §5.2.5.2: a driver that can switch the cache and not flush it begins without one.
        let unflushable = self.negotiated.contains(Features::CONFIG_WCE)
            && !self.negotiated.contains(Features::FLUSH);
        self.space.writeback = (self.config.write_back && !unflushable).into();
        self.update_cache();
    }

    fn config(&self) -> &[u8] {
        self.space.as_bytes()
    }

    /// `writeback` alone is the driver's, once it has negotiated `CONFIG_WCE`, and holds 0 or 1
    /// (virtio 1.2 §5.2.5, §5.2.5.1).
    fn write_config(&mut self, offset: usize, data: &[u8]) -> ConfigWrite {
        let at = ConfigSpace::WRITEBACK.checked_sub(offset);
        let Some(&value) = at.and_then(|at| data.get(at)) else {
            return ConfigWrite::Ignored;
        };
        if !self.negotiated.contains(Features::CONFIG_WCE) {
            return ConfigWrite::Ignored;
        }
        let writeback = u8::from(value != 0);
        if writeback == self.space.writeback {
            return ConfigWrite::Unchanged;
        }
        self.space.writeback = writeback;
        self.update_cache();
        ConfigWrite::Changed
    }

    /// `writeback`, the one thing that a driver sets besides its features.
    fn save_state(&self) -> Vec<u8> {
        vec![self.space.writeback]
    }

    fn restore_state(&mut self, state: &[u8]) -> bool {
        let &[writeback @ (0 | 1)] = state else {
            return false;
        };
        self.space.writeback = writeback;
        self.update_cache();
        true
    }

    fn reset(&mut self) {
        self.negotiated = Features::empty();
        self.space.writeback = self.config.write_back.into();
        self.update_cache();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::InOrder;
    use crate::{Limits, RangeLimits, ZeroesLimits};

    #[test]
    fn features_are_offered_only_with_something_behind_them() {
        let plain = BlockDevice::new(4096, &BlockConfig::default()).unwrap();
        assert_eq!(
            plain.features(),
            1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 28 | 1 << 29,
            "SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, INDIRECT_DESC, EVENT_IDX"
        );
        let direct = BlockConfig { indirect: false, ..BlockConfig::default() };
        let direct = BlockDevice::new(4096, &direct).unwrap();
        assert_eq!(direct.features(), plain.features() & !(1 << 28));
        let range = RangeLimits { max_sectors: 8, max_seg: 1, alignment_sectors: 1 };
        let zeroes = ZeroesLimits { max_sectors: 8, max_seg: 1, may_unmap: false };
        let config = BlockConfig {
            size_max: Some(65536),
            num_queues: 2,
            limits: Limits {
                discard: Some(range),
                write_zeroes: Some(zeroes),
                secure_erase: Some(range),
                lifetime: true,
            },
            in_order: Some(InOrder::KEPT),
            ..BlockConfig::default()
        };
        let full = BlockDevice::new(4096, &config).unwrap();
        let more = [1, 12, 13, 14, 15, 16, 35].iter().fold(0, |bits, bit| bits | 1u64 << bit);
        assert_eq!(full.features(), plain.features() | more);
        assert_eq!(full.queue_max_sizes(), [256, 256]);
        // Nothing on a read-only disk changes it.
        let config = BlockConfig { read_only: true, ..config };
        let read_only = BlockDevice::new(4096, &config).unwrap();
        let changes = 1 << 13 | 1 << 14 | 1 << 16;
        assert_eq!(read_only.features(), full.features() & !changes | 1 << 5);
    }

    fn negotiated(config: &BlockConfig, features: u64) -> BlockDevice {
        let mut device = BlockDevice::new(4096, config).unwrap();
        device.accept_features(1 << 32 | features);
        device
    }

    const FLUSH: u64 = 1 << 9;
    const CONFIG_WCE: u64 = 1 << 11;

    #[test]
    fn a_driver_without_flush_gets_write_through() {
        let config = BlockConfig::default();
        assert!(!negotiated(&config, 0).is_write_back());
        assert!(negotiated(&config, FLUSH).is_write_back());
        assert!(!negotiated(&config, CONFIG_WCE).is_write_back());
        assert!(negotiated(&config, FLUSH | CONFIG_WCE).is_write_back());
        let config = BlockConfig { write_back: false, ..config };
        assert!(!negotiated(&config, FLUSH | CONFIG_WCE).is_write_back());
    }

    #[test]
    fn the_cache_is_the_drivers_to_switch_until_it_resets() {
        let mut device = negotiated(&BlockConfig::default(), FLUSH | CONFIG_WCE);
        let params = device.params();
        assert_eq!(device.write_config(32, &[0]), ConfigWrite::Changed);
        assert!(!params.live.write_back());
        assert_eq!(device.config()[32], 0);
        assert_eq!(device.write_config(32, &[0]), ConfigWrite::Unchanged);
        // Wide writes are taken for the one byte in them that counts.
        assert_eq!(device.write_config(30, &[9, 9, 7, 9]), ConfigWrite::Changed);
        assert!(params.live.write_back());
        assert_eq!(device.config()[30..34], [0, 0, 1, 0]);
        for (offset, data) in [(0, &[9; 8][..]), (33, &[9]), (24, &[9; 8])] {
            let written = device.write_config(offset, data);
            assert_eq!(written, ConfigWrite::Ignored, "a write at {offset}");
            assert!(params.live.write_back());
            assert_eq!(device.config()[32], 1, "a write at {offset}");
        }
        device.write_config(32, &[0]);
        device.reset();
        assert_eq!(device.config()[32], 1);
    }

    #[test]
    fn without_config_wce_the_cache_is_not_the_drivers() {
        let before_features_ok = BlockDevice::new(4096, &BlockConfig::default()).unwrap();
        for mut device in [negotiated(&BlockConfig::default(), FLUSH), before_features_ok] {
            let write_back = device.is_write_back();
            assert_eq!(device.write_config(32, &[0]), ConfigWrite::Ignored);
            assert_eq!(device.is_write_back(), write_back);
            assert_eq!(device.config()[32], 1);
        }
    }

    #[test]
    fn a_saved_state_holds_whether_the_driver_has_switched_its_cache_off() {
        let features = FLUSH | CONFIG_WCE;
        for off in [false, true] {
            let mut device = negotiated(&BlockConfig::default(), features);
            device.write_config(32, &[u8::from(!off)]);
            let mut restored = negotiated(&BlockConfig::default(), features);
            assert!(restored.restore_state(&device.save_state()));
            assert_eq!(restored.is_write_back(), !off);
            assert_eq!(restored.config(), device.config());
        }
        let mut device = negotiated(&BlockConfig::default(), features);
        for not_one in [&[][..], &[2], &[0, 0]] {
            assert!(!device.restore_state(not_one));
        }
        assert!(device.is_write_back());
    }

    #[test]
    fn another_capacity_is_seen_by_driver_and_workers() {
        let mut device = BlockDevice::new(4096, &BlockConfig::default()).unwrap();
        let params = device.params();
        device.set_capacity(8192).unwrap();
        assert_eq!((params.live.capacity(), device.config()[0]), (8192, 16));
        let odd = device.set_capacity(8193);
        assert_eq!(odd, Err(ConfigError::Capacity { capacity: 8193, block: 512 }));
        assert_eq!((params.live.capacity(), device.config()[0]), (8192, 16));
    }
}
