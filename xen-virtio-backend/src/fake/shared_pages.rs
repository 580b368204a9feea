//! Pages of a guest that a device may reach.

use super::descriptor::WRITE;

/// Guest memory that was given to a device.
#[derive(Clone, Copy, Debug)]
pub struct SharedPages {
    /// Its address as the device is told: a guest-physical address, or a grant.
    pub device: u64,
    /// Its guest-physical address.
    pub guest: u64,
    /// How many bytes the device may use.
    pub len: u32,
    pub(super) pages: u64,
}

impl SharedPages {
    /// All of it as a buffer that the device reads, for [`FakeDriver::chain`](super::FakeDriver::chain).
    pub fn readable(&self) -> (u64, u32, u16) {
        (self.device, self.len, 0)
    }

    /// All of it as a buffer that the device writes.
    pub fn writable(&self) -> (u64, u32, u16) {
        (self.device, self.len, WRITE)
    }

    /// How many pages it takes.
    pub fn pages(&self) -> u64 {
        self.pages
    }
}
