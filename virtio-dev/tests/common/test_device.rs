//! A device to drive.

use virtio_dev::{ConfigWrite, SharedMemory, VirtioDevice, feature};

/// A device with a bit of everything.
pub struct TestDevice {
    pub features: u64,
    /// Refused by `validate_features` when taken.
    pub refused: u64,
    pub accepted: Option<u64>,
    pub sizes: Vec<u16>,
    pub config: Vec<u8>,
    /// The one writable field of the configuration space.
    pub writable: std::ops::Range<usize>,
    pub resets: u32,
}

impl Default for TestDevice {
    fn default() -> Self {
        Self {
            features: feature::INDIRECT_DESC | feature::EVENT_IDX | 0b1011,
            refused: 0b1000,
            accepted: None,
            sizes: vec![16, 64],
            config: (1..=12).collect(),
            writable: 8..9,
            resets: 0,
        }
    }
}

impl VirtioDevice for TestDevice {
    fn device_type(&self) -> u32 {
        2
    }
    fn vendor_id(&self) -> u32 {
        0x1234_5678
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &self.sizes
    }
    fn features(&self) -> u64 {
        self.features
    }
    fn validate_features(&self, driver: u64) -> bool {
        driver & self.refused == 0
    }
    fn accept_features(&mut self, driver: u64) {
        self.accepted = Some(driver);
    }
    fn config(&self) -> &[u8] {
        &self.config
    }
    fn write_config(&mut self, offset: usize, data: &[u8]) -> ConfigWrite {
        let mut written = ConfigWrite::Ignored;
        for (at, byte) in (offset..).zip(data) {
            if self.writable.contains(&at) {
                let old = std::mem::replace(&mut self.config[at], *byte);
                written = if old == *byte { ConfigWrite::Unchanged } else { ConfigWrite::Changed };
            }
        }
        written
    }
    fn save_state(&self) -> Vec<u8> {
        self.config[self.writable.clone()].to_vec()
    }
    fn restore_state(&mut self, state: &[u8]) -> bool {
        let fits = state.len() == self.writable.len();
        if fits {
            self.config[self.writable.clone()].copy_from_slice(state);
        }
        fits
    }
    fn shared_memory(&self, id: u32) -> Option<SharedMemory> {
        (id == 1).then_some(SharedMemory { base: 0x1_2345_6000, len: 0x2_0000_1000 })
    }
    fn reset(&mut self) {
        self.resets += 1;
    }
}
