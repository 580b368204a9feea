//! What the address spaces of one guest's memory share.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::Chunk;
use crate::chunk_cache::ChunkCache;
use crate::domid::DomId;
use crate::error::MapError;
use crate::foreign::ForeignMemory;
use crate::grant::GrantTable;
use crate::layout::Layout;
use crate::stats::Counters;

/// The mappings of one guest's memory: the cache of its RAM, and by what to map.
pub(crate) struct Domain<F, G> {
    pub(crate) foreign: Option<Arc<F>>,
    pub(crate) grants: Option<Arc<G>>,
    pub(crate) layout: Layout,
    pub(crate) chunks: ChunkCache,
    pub(crate) counters: Arc<Counters>,
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

    pub(crate) fn domid(&self) -> Option<DomId> {
        let foreign = self.foreign.as_ref().map(|foreign| foreign.domid());
        foreign.or_else(|| self.grants.as_ref().map(|grants| grants.domid()))
    }

    pub(crate) fn no_ram(&self, addr: u64) -> MapError {
        MapError::invalid(self.domid().unwrap_or_default(), addr)
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
