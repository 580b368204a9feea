//! What vm-memory's `GuestMemory` asks of memory that has no one flat backend underneath.

use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestUsize,
};

/// The flat memory under ours: there is none, and no value of this type.
#[derive(Debug)]
pub enum NoPhysicalMemory {}

/// A region of [`NoPhysicalMemory`]: there is none.
#[derive(Debug)]
pub enum NoRegion {}

impl GuestMemoryBackend for NoPhysicalMemory {
    type R = NoRegion;

    fn iter(&self) -> impl Iterator<Item = &NoRegion> {
        std::iter::empty()
    }
}

impl GuestMemoryRegionBytes for NoRegion {}

impl GuestMemoryRegion for NoRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        match *self {}
    }

    fn start_addr(&self) -> GuestAddress {
        match *self {}
    }

    fn bitmap(&self) {
        match *self {}
    }
}

/// The error of an address that is not memory.
pub(crate) fn invalid_address(addr: GuestAddress) -> GuestMemoryError {
    GuestMemoryError::InvalidGuestAddress(addr)
}
