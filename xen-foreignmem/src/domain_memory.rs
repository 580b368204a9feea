//! A guest's memory, by foreign mappings and by grants.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::Chunk;
use crate::chunk_cache::ChunkCache;
use crate::error::{MapError, MapTarget};
use crate::foreign::ForeignMemory;
use crate::grant::GrantTable;
use crate::guard::{Requests, Rings};
use crate::layout::Layout;
use crate::retired::Retired;
use crate::stats::{Counters, Stats};
use crate::{DomId, PAGE_SIZE};

/// A guest's memory, as a virtio backend uses it: RAM by foreign mappings, which are cached, and
/// grants, which never are.
///
/// It gives out two address spaces over one cache, because their sharing rules differ:
/// [`rings`](Self::rings) stay mapped while a queue is ready, and what a request touched
/// ([`requests`](Self::requests)) is given back before its used entry is published.
///
/// A clone is the same memory.
pub struct DomainMemory<F: ForeignMemory, G: GrantTable>(Arc<Domain<F, G>>);

pub(crate) struct Domain<F, G> {
    pub(crate) foreign: Option<Arc<F>>,
    pub(crate) grants: Option<Arc<G>>,
    pub(crate) layout: Layout,
    pub(crate) chunks: ChunkCache,
    pub(crate) counters: Arc<Counters>,
}

impl<F: ForeignMemory, G: GrantTable> DomainMemory<F, G> {
    /// The memory of the guest that `foreign` and `grants` are for. Without `foreign` it has no RAM,
    /// without `grants` no granted memory: their addresses are invalid.
    pub fn new(foreign: Option<Arc<F>>, grants: Option<Arc<G>>, layout: Layout) -> Self {
        let counters = Arc::<Counters>::default();
        let chunks = ChunkCache::new(counters.clone());
        Self(Arc::new(Domain { foreign, grants, layout, chunks, counters }))
    }

    /// The address space for one queue's rings.
    pub fn rings(&self) -> Rings<F, G> {
        Rings::new(self.0.clone())
    }

    /// The address space for one queue's requests.
    pub fn requests(&self) -> Requests<F, G> {
        Requests::new(self.0.clone())
    }

    /// Maps a range of RAM in advance: the chunks it touches, as far as they have any memory.
    ///
    /// # Errors
    ///
    /// A range that is not in a bank, one for which the budget has no room, or what mapping answers.
    /// What was mapped until then stays.
    pub fn map_whole(&self, range: Range<u64>) -> Result<(), MapError> {
        match &self.0.foreign {
            Some(foreign) if self.0.has_ram(range.start, range.end) => {
                self.0.chunks.map_whole(&**foreign, &self.0.layout, range)
            }
            _ => Err(self.0.no_ram(range.start)),
        }
    }

    /// Forgets the cached mappings of RAM, as Xen asks for by an INVALIDATE request
    /// (`IOREQ_TYPE_INVALIDATE`) when the guest gave memory back.
    ///
    /// Guards keep what they have. Later accesses by new guards map anew. Nothing is unmapped yet: drop
    /// what this returns when the request is answered.
    pub fn invalidate(&self) -> Retired {
        self.0.chunks.clear()
    }

    /// What is mapped, and what was done so far.
    pub fn stats(&self) -> Stats {
        self.0.counters.read(self.0.grants.as_ref().map_or(0, |grants| grants.unmap_failures()))
    }

    /// Where RAM may be, and how it is mapped.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }
}

impl<F: ForeignMemory, G: GrantTable> Domain<F, G> {
    /// Whether a range can be RAM.
    pub(crate) fn has_ram(&self, start: u64, end: u64) -> bool {
        self.foreign.is_some() && self.layout.bank(start, end).is_some()
    }

    /// A chunk that has the page of `range.start`; the range is in a bank.
    pub(crate) fn chunk(&self, range: Range<u64>) -> Result<Arc<Chunk>, MapError> {
        match &self.foreign {
            Some(foreign) => self.chunks.get(&**foreign, &self.layout, range),
            None => Err(self.no_ram(range.start)),
        }
    }

    /// The pages of a range in a bank, mapped for a ring.
    pub(crate) fn ring(&self, range: Range<u64>) -> Result<Arc<Chunk>, MapError> {
        match &self.foreign {
            Some(foreign) => self.chunks.ring(&**foreign, &self.layout, range),
            None => Err(self.no_ram(range.start)),
        }
    }

    fn domid(&self) -> Option<DomId> {
        let foreign = self.foreign.as_ref().map(|foreign| foreign.domid());
        foreign.or_else(|| self.grants.as_ref().map(|grants| grants.domid()))
    }

    fn no_ram(&self, addr: u64) -> MapError {
        let source = std::io::Error::from_raw_os_error(libc::EINVAL);
        let gfn = MapTarget::Gfn(addr / PAGE_SIZE as u64);
        MapError::new(self.domid().unwrap_or_default(), gfn, source)
    }
}

impl<F: ForeignMemory, G: GrantTable> Clone for DomainMemory<F, G> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: ForeignMemory, G: GrantTable> fmt::Debug for DomainMemory<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<F: ForeignMemory, G: GrantTable> fmt::Debug for Domain<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainMemory")
            .field("domid", &self.domid())
            .field("layout", &self.layout)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
