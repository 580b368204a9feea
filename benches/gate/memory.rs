//! The memories a guest lives in.

use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable, FakeRam};
use xen_foreignmem::{DomainMemory, Layout};

use crate::guest::MEMORY_LEN;

pub(crate) use xen_virtio_benches::RAM;

/// Marks an address made of grants (`XEN_GRANT_DMA_ADDR_OFF`, as Linux has it).
const GRANT: u64 = 1 << 63;
const PAGE: u64 = 4096;

/// Memory that is all there, as a VMM has it.
pub(crate) struct Plain {
    pub(crate) memory: &'static GuestMemoryMmap<()>,
    /// The guest's own view.
    pub(crate) all: VolatileSlice<'static>,
}

impl Plain {
    pub(crate) fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), MEMORY_LEN)]);
        let memory = Box::leak(Box::new(memory.expect("memory")));
        Self { memory, all: whole(memory) }
    }
}

/// A Xen guest's memory, behind the fakes of the kernel's side.
pub(crate) struct Domain {
    pub(crate) memory: DomainMemory<FakeForeignMemory, FakeGrantTable>,
    pub(crate) all: VolatileSlice<'static>,
    /// Where the device finds it.
    pub(crate) base: u64,
}

impl Domain {
    /// Mapped as foreign memory.
    pub(crate) fn foreign() -> Self {
        let ram = ram();
        let foreign = Arc::new(FakeForeignMemory::new(Arc::clone(ram)));
        let memory = DomainMemory::new(Some(foreign), None, Layout::default());
        Self { memory, all: whole(ram.as_ref()), base: RAM }
    }

    /// Every page granted once, as a guest with persistent grants has it.
    pub(crate) fn granted() -> Self {
        let ram = ram();
        let grants = Arc::new(FakeGrantTable::new(Arc::clone(ram)));
        let frames: Vec<u64> = (0..MEMORY_LEN as u64 / PAGE).map(|n| RAM / PAGE + n).collect();
        let first = grants.grant_all(&frames, false);
        let memory = DomainMemory::new(None, Some(grants), Layout::default());
        let base = GRANT | (u64::from(first) * PAGE);
        Self { memory, all: whole(ram.as_ref()), base }
    }
}

fn ram() -> &'static Arc<FakeRam> {
    Box::leak(Box::new(Arc::new(FakeRam::new(1, &[(RAM, MEMORY_LEN as u64)]))))
}

fn whole<M: GuestMemory<Bitmap = ()>>(memory: &'static M) -> VolatileSlice<'static> {
    let slices = memory.get_slices(GuestAddress(RAM), MEMORY_LEN, Permissions::ReadWrite);
    slices.expect("memory").next().expect("a slice").expect("one slice of all of it")
}
