//! A guest with RAM in two banks, and what tests ask of it.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemory, Permissions};
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable, FakeRam};
use xen_foreignmem::{DomainMemory, GRANT_BIT, Layout, PAGE_SIZE};

pub(crate) const PAGE: u64 = PAGE_SIZE as u64;
pub(crate) const LOW: u64 = 0x4000_0000;
pub(crate) const HIGH: u64 = 0x2_0000_0000;
pub(crate) const CHUNK: u64 = 4 * PAGE;

pub(crate) struct Guest {
    pub ram: Arc<FakeRam>,
    pub foreign: Arc<FakeForeignMemory>,
    pub grants: Arc<FakeGrantTable>,
}

pub(crate) type Memory = DomainMemory<FakeForeignMemory, FakeGrantTable>;

impl Guest {
    /// 16 pages from [`LOW`] on, 6 from [`HIGH`] on.
    pub(crate) fn new() -> Self {
        Self::with_kernel_page_size(PAGE_SIZE)
    }

    /// The same, and the backend's kernel has pages of this size.
    pub(crate) fn with_kernel_page_size(bytes: usize) -> Self {
        let ram = Arc::new(FakeRam::new(3, &[(LOW, 16 * PAGE), (HIGH, 6 * PAGE)]));
        let foreign = FakeForeignMemory::new(ram.clone()).with_kernel_page_size(bytes);
        let grants = FakeGrantTable::new(ram.clone()).with_kernel_page_size(bytes);
        Self { ram, foreign: Arc::new(foreign), grants: Arc::new(grants) }
    }

    pub(crate) fn memory(&self, layout: Layout) -> Memory {
        DomainMemory::new(Some(self.foreign.clone()), Some(self.grants.clone()), layout)
    }

    pub(crate) fn grant(&self, page: u64, readonly: bool) -> u32 {
        self.grants.grant((LOW / PAGE) + page, readonly)
    }
}

/// Longer ranges than a page are mapped, not copied.
pub(crate) fn layout() -> Layout {
    Layout::arm().chunk_size(CHUNK).unwrap().copy_max(PAGE_SIZE)
}

pub(crate) fn at(addr: u64) -> GuestAddress {
    GuestAddress(addr)
}

pub(crate) fn granted(gref: u32, offset: u64) -> GuestAddress {
    GuestAddress(GRANT_BIT | u64::from(gref) << 12 | offset)
}

pub(crate) fn lens<M: GuestMemory>(memory: &M, addr: GuestAddress, len: usize) -> Vec<usize> {
    let slices = memory.get_slices(addr, len, Permissions::Read).unwrap();
    slices.map(|slice| slice.unwrap().len()).collect()
}
