//! Guest memory that doesn't have to be looked up again.

use vm_memory::bitmap::BS;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress,
    VolatileSlice,
};

/// A piece of guest memory that is mapped as long as the batch it came from lasts.
pub type PlainSlice<'a, M> =
    VolatileSlice<'a, BS<'a, RegionBitmap<<M as GuestMemory>::PhysicalMemory>>>;

type RegionBitmap<P> = <<P as GuestMemoryBackend>::R as GuestMemoryRegion>::B;

/// The region of a plain memory that was used last: the next address most likely lies in it, and a
/// look-up costs several times what the comparison does.
///
/// Memory behind a translation ([`GuestMemory::physical_memory`] is `None`) has no windows.
pub(super) struct Windows<'a, M: GuestMemory> {
    memory: Option<&'a M::PhysicalMemory>,
    start: u64,
    last: Option<PlainSlice<'a, M>>,
}

impl<'a, M: GuestMemory> Windows<'a, M> {
    pub(super) fn new(memory: Option<&'a M::PhysicalMemory>) -> Self {
        Self { memory, start: 0, last: None }
    }

    /// The `len` bytes at `addr`, if a region has them.
    #[inline]
    pub(super) fn slice(&mut self, addr: GuestAddress, len: usize) -> Option<PlainSlice<'a, M>> {
        if let Some(slice) = self.known(addr, len) {
            return Some(slice);
        }
        self.look_up(addr)?;
        self.known(addr, len)
    }

    #[inline]
    fn known(&self, addr: GuestAddress, len: usize) -> Option<PlainSlice<'a, M>> {
        let offset = usize::try_from(addr.0.wrapping_sub(self.start)).ok()?;
        self.last.as_ref()?.subslice(offset, len).ok()
    }

    #[cold]
    fn look_up(&mut self, addr: GuestAddress) -> Option<()> {
        let region = self.memory?.find_region(addr)?;
        let len = usize::try_from(region.len()).ok()?;
        self.last = Some(region.get_slice(MemoryRegionAddress(0), len).ok()?);
        self.start = region.start_addr().0;
        Some(())
    }
}
