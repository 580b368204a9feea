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
    /// The memory that is shown, if that is plain.
    whole: Option<&'a M>,
    start: u64,
    last: Option<PlainSlice<'a, M>>,
}

impl<'a, M: GuestMemory> Windows<'a, M> {
    pub(super) fn new(whole: Option<&'a M>) -> Self {
        Self { whole, start: 0, last: None }
    }

    /// Whether `memory` is the one that is shown, and not only one like it.
    #[inline]
    pub(super) fn is_of(&self, memory: &M) -> bool {
        // No memory lies at the null address: one comparison for both.
        std::ptr::eq(self.whole.map_or(std::ptr::null(), std::ptr::from_ref), memory)
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
        let region = self.whole?.physical_memory()?.find_region(addr)?;
        let len = usize::try_from(region.len()).ok()?;
        self.last = Some(region.get_slice(MemoryRegionAddress(0), len).ok()?);
        self.start = region.start_addr().0;
        Some(())
    }
}
