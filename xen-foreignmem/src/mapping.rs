//! An owned mapping of guest memory.

use std::fmt;
use std::sync::Arc;

use memmap2::MmapRaw;
use vm_memory::VolatileSlice;

bitflags::bitflags! {
    /// What a mapping may be used for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        /// Loads.
        const READ = 1;
        /// Stores. The kernel's mappings that can be written can be read too.
        const WRITE = 2;
    }
}

/// Guest or hypervisor pages mapped into this process, at least one.
///
/// Whoever holds one may access its memory; it unmaps itself, once, when it is dropped. The other
/// side changes the memory at any moment, so no reference to it is ever made: it is reached by raw
/// pointer or through [`VolatileSlice`].
///
/// A page of a *sparse* mapping that is a hole (see
/// [`map_sparse`](crate::ForeignMemory::map_sparse)) raises SIGBUS when touched.
pub struct Mapping {
    // Dropped in this order: a grant can't be given back while it is still mapped.
    region: MmapRaw,
    _release: Option<Release>,
    prot: Prot,
}

impl Mapping {
    pub(crate) fn new(region: MmapRaw, prot: Prot) -> Self {
        Self { region, _release: None, prot }
    }

    pub(crate) fn with_release(region: MmapRaw, prot: Prot, release: Release) -> Self {
        Self { region, _release: Some(release), prot }
    }

    /// The first byte: page-aligned, valid for [`len`](Self::len) bytes as long as `self` lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.region.as_mut_ptr()
    }

    /// Length in bytes, a multiple of [`PAGE_SIZE`](crate::PAGE_SIZE).
    pub fn len(&self) -> usize {
        self.region.len()
    }

    /// Never true: a mapping has at least one page.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The access it was mapped for. A store to a mapping without [`Prot::WRITE`] raises SIGSEGV.
    pub fn prot(&self) -> Prot {
        self.prot
    }

    /// The whole mapping, for volatile access.
    ///
    /// Storing through it needs [`Prot::WRITE`], and a hole must not be touched.
    pub fn as_volatile_slice(&self) -> VolatileSlice<'_> {
        // SAFETY: the region is mapped for its whole length as long as `self` is borrowed, and it
        // is only ever reached by volatile or raw accesses.
        unsafe { VolatileSlice::new(self.as_ptr(), self.len()) }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("address", &self.as_ptr())
            .field("len", &self.len())
            .field("prot", &self.prot)
            .finish_non_exhaustive()
    }
}

/// What gives pages back after they were unmapped.
pub(crate) trait Unmap: Send + Sync {
    /// `index` and `count` are those of the call that mapped.
    fn unmap(&self, index: u64, count: u32);
}

/// The right, and duty, to give mapped grants back.
pub(crate) struct Release {
    owner: Arc<dyn Unmap>,
    index: u64,
    count: u32,
}

impl Release {
    pub(crate) fn new(owner: Arc<dyn Unmap>, index: u64, count: u32) -> Self {
        Self { owner, index, count }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        self.owner.unmap(self.index, self.count);
    }
}
