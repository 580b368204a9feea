//! A guest's memory, by foreign mappings and by grants.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::chunk_cache::ChunkCache;
use crate::domain::Domain;
use crate::error::MapError;
use crate::foreign::ForeignMemory;
use crate::grant::GrantTable;
use crate::guard::{Requests, Rings};
use crate::layout::Layout;
use crate::retired::Retired;
use crate::stats::{Counters, Stats};

/// A guest's memory, as a virtio backend uses it: RAM by foreign mappings, which are cached, and
/// grants, which never are.
///
/// It gives out two address spaces over one cache, because their sharing rules differ:
/// [`rings`](Self::rings) stay mapped while a queue is ready, and the memory of a request
/// ([`requests`](Self::requests)) is released before its used entry is published.
///
/// A clone is the same memory.
pub struct DomainMemory<F: ForeignMemory, G: GrantTable>(Arc<Domain<F, G>>);

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

    /// Removes all mappings of RAM from the cache, as Xen requests by INVALIDATE (`IOREQ_TYPE_INVALIDATE`) when
    /// the guest has given memory back.
    ///
    /// Guards keep their mappings; accesses by new guards map anew. Nothing is unmapped yet: drop the returned
    /// value after the request was answered.
    pub fn invalidate(&self) -> Retired {
        self.0.chunks.clear()
    }

    /// A copy of the counters.
    pub fn stats(&self) -> Stats {
        self.0.counters.read(self.0.grants.as_ref().map_or(0, |grants| grants.unmap_failures()))
    }

    /// Where RAM may be, and how it is mapped.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
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
