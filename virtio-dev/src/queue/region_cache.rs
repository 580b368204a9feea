//! The region of guest memory that was used last.

use vm_memory::bitmap::BS;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress,
    VolatileSlice,
};

/// A piece of guest memory that is mapped as long as the batch it came from lasts.
pub type PlainSlice<'a, M> =
    VolatileSlice<'a, BS<'a, RegionBitmap<<M as GuestMemory>::PhysicalMemory>>>;

type RegionBitmap<P> = <<P as GuestMemoryBackend>::R as GuestMemoryRegion>::B;

/// The region of a plain memory that was used last. The next address most likely lies in it too, and
/// a look-up costs several times as much as the comparison.
///
/// For memory behind a translation ([`GuestMemory::physical_memory`] is `None`) nothing is cached.
pub(super) struct RegionCache<'a, M: GuestMemory> {
    /// The memory whose region is cached, if it is plain.
    memory: Option<&'a M>,
    start: u64,
    last: Option<PlainSlice<'a, M>>,
}

impl<'a, M: GuestMemory> RegionCache<'a, M> {
    pub(super) fn new(memory: Option<&'a M>) -> Self {
        Self { memory, start: 0, last: None }
    }

    /// Whether `memory` is the very memory whose region is cached.
    #[inline]
    pub(super) fn is_cache_of(&self, memory: &M) -> bool {
        // No memory is at the null address, so one comparison covers both cases.
        std::ptr::eq(self.memory.map_or(std::ptr::null(), std::ptr::from_ref), memory)
    }

    /// The `len` bytes at `addr`, if a region has them.
    #[inline]
    pub(super) fn slice(&mut self, addr: GuestAddress, len: usize) -> Option<PlainSlice<'a, M>> {
        if let Some(slice) = self.cached(addr, len) {
            return Some(slice);
        }
        self.look_up(addr)?;
        self.cached(addr, len)
    }

    #[inline]
    fn cached(&self, addr: GuestAddress, len: usize) -> Option<PlainSlice<'a, M>> {
        let offset = usize::try_from(addr.0.wrapping_sub(self.start)).ok()?;
        self.last.as_ref()?.subslice(offset, len).ok()
    }

    #[cold]
    fn look_up(&mut self, addr: GuestAddress) -> Option<()> {
        let region = self.memory?.physical_memory()?.find_region(addr)?;
        let len = usize::try_from(region.len()).ok()?;
        self.last = Some(region.get_slice(MemoryRegionAddress(0), len).ok()?);
        self.start = region.start_addr().0;
        Some(())
    }
}
