//! The chunks of a guest's RAM that are mapped.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::budget::Use;
use crate::chunk::Chunk;
use crate::error::MapError;
use crate::foreign::ForeignMemory;
use crate::layout::Layout;
use crate::lock::lock;
use crate::mapping::Prot;
use crate::page::PAGE_SIZE;
use crate::retired::Retired;
use crate::stats::{Counters, count};

const RW: Prot = Prot::READ.union(Prot::WRITE);
/// The most chunks that are evicted for one that the kernel had no memory for.
const MAX_TRIES: u32 = 16;

/// The mapped chunks of a guest by address, shared by its queues.
#[derive(Debug)]
pub(crate) struct ChunkCache {
    /// Held only for a look-up or a change, never while anything is mapped or unmapped: the thread that answers
    /// an INVALIDATE takes it while a vCPU waits.
    cached: Mutex<Cached>,
    /// Held while a chunk is mapped or evicted. The kernel serialises mappings of a process anyway.
    mapper: Mutex<()>,
    /// The time for "least recently used": advances when a chunk is mapped.
    clock: AtomicU64,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Cached {
    chunks: BTreeMap<u64, Arc<Chunk>>,
    /// The number of INVALIDATE requests. A chunk that was mapped before one isn't cached after it.
    generation: u64,
}

impl Cached {
    fn find(&self, addr: u64) -> Option<&Arc<Chunk>> {
        let (_, chunk) = self.chunks.range(..=addr).next_back()?;
        chunk.window(addr).is_some().then_some(chunk)
    }

    /// Removes the least recently used chunk that no guard holds.
    fn take_oldest(&mut self) -> Option<Arc<Chunk>> {
        let unused = self.chunks.iter().filter(|(_, chunk)| Arc::strong_count(chunk) == 1);
        let (&start, _) = unused.min_by_key(|(_, chunk)| chunk.last_used())?;
        self.take(start)
    }

    fn take(&mut self, start: u64) -> Option<Arc<Chunk>> {
        let chunk = self.chunks.remove(&start)?;
        chunk.retire();
        Some(chunk)
    }
}

impl ChunkCache {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            cached: Mutex::default(),
            mapper: Mutex::default(),
            clock: AtomicU64::new(1),
            counters,
        }
    }

    /// The time, to [`touch`](Chunk::touch) chunks with.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// A chunk that has the page of `range.start`, an address in a bank, mapped if need be. Where the
    /// budget has no room for a chunk, as all are in use, it is one of the range's pages alone.
    ///
    /// The page alone is tried first, so that asking for what is not there costs one page, however
    /// large the chunks are; once it is there, the rest of its chunk is mapped with it.
    pub(crate) fn get<F: ForeignMemory>(
        &self,
        foreign: &F,
        layout: &Layout,
        range: Range<u64>,
    ) -> Result<Arc<Chunk>, MapError> {
        let addr = range.start;
        if let Some(chunk) = self.find(addr) {
            return Ok(chunk);
        }
        let _mapper = lock(&self.mapper);
        // Another queue may have mapped it meanwhile.
        if let Some(chunk) = self.find(addr) {
            return Ok(chunk);
        }
        self.probe(foreign, addr)?;
        let whole =
            layout.chunk_of(addr).ok_or_else(|| MapError::invalid(foreign.domid(), addr))?;
        let (holey, generation) = {
            let mut cached = lock(&self.cached);
            (cached.take(whole.start), cached.generation)
        };
        drop(holey);
        if !self.make_room(layout, whole.end - whole.start) {
            return self.map_pages(foreign, layout, range, Use::Request);
        }
        let chunk = Arc::new(self.map_evicting(foreign, whole)?);
        chunk.touch(self.clock.fetch_add(1, Ordering::Relaxed));
        if chunk.window(addr).is_none() {
            // The guest gave the page back in between.
            return Err(MapError::invalid(foreign.domid(), addr));
        }
        let mut cached = lock(&self.cached);
        if cached.generation == generation {
            cached.chunks.insert(chunk.start(), chunk.clone());
        } else {
            // Some of its frames may be the guest's no more. The access is of before the change.
            chunk.retire();
        }
        Ok(chunk)
    }

    /// The pages of a range in a bank, or the first of them, mapped for a ring alone. Their number is
    /// bounded by that of the queues, so the budget doesn't refuse them.
    pub(crate) fn ring<F: ForeignMemory>(
        &self,
        foreign: &F,
        layout: &Layout,
        range: Range<u64>,
    ) -> Result<Arc<Chunk>, MapError> {
        let _mapper = lock(&self.mapper);
        self.probe(foreign, range.start)?;
        self.map_pages(foreign, layout, range, Use::Ring)
    }

    /// Maps what there is of a range, as far as it is not mapped yet.
    pub(crate) fn map_whole<F: ForeignMemory>(
        &self,
        foreign: &F,
        layout: &Layout,
        range: Range<u64>,
    ) -> Result<(), MapError> {
        let mut addr = range.start;
        while addr < range.end {
            let whole =
                layout.chunk_of(addr).ok_or_else(|| MapError::invalid(foreign.domid(), addr))?;
            let at = std::mem::replace(&mut addr, whole.end);
            let _mapper = lock(&self.mapper);
            let generation = {
                let cached = lock(&self.cached);
                if cached.chunks.contains_key(&whole.start) {
                    continue;
                }
                cached.generation
            };
            if layout.room(&self.counters, Use::Chunk) < whole.end - whole.start {
                return Err(MapError::over_budget(foreign.domid(), at, layout));
            }
            let chunk = self.map(foreign, whole)?;
            chunk.touch(self.clock.fetch_add(1, Ordering::Relaxed));
            let mut cached = lock(&self.cached);
            if !chunk.is_all_holes() && cached.generation == generation {
                cached.chunks.insert(chunk.start(), Arc::new(chunk));
            }
        }
        Ok(())
    }

    /// Takes all chunks out of use for new accesses. Guards keep theirs. Unmaps nothing.
    pub(crate) fn clear(&self) -> Retired {
        let chunks = {
            let mut cached = lock(&self.cached);
            cached.generation += 1;
            std::mem::take(&mut cached.chunks)
        };
        chunks.values().for_each(|chunk| chunk.retire());
        Retired::new(chunks.into_values().collect())
    }

    fn find(&self, addr: u64) -> Option<Arc<Chunk>> {
        let cached = lock(&self.cached);
        let chunk = cached.find(addr)?;
        chunk.touch(self.now());
        Some(chunk.clone())
    }

    fn probe<F: ForeignMemory>(&self, foreign: &F, addr: u64) -> Result<(), MapError> {
        count(&self.counters.map_calls);
        foreign.map(RW, &[addr / PAGE_SIZE as u64]).map(drop)
    }

    /// Maps the pages of a range for one access, without caching them.
    fn map_pages<F: ForeignMemory>(
        &self,
        foreign: &F,
        layout: &Layout,
        range: Range<u64>,
        wanted: Use,
    ) -> Result<Arc<Chunk>, MapError> {
        let room = layout.room(&self.counters, wanted);
        // As many pages of the kernel as fit.
        let room = room - room % foreign.kernel_page_size() as u64;
        let pages = layout.pages_of(&range, room);
        if pages.is_empty() {
            count(&self.counters.refusals);
            return Err(MapError::over_budget(foreign.domid(), range.start, layout));
        }
        let chunk = self.map(foreign, pages)?;
        if wanted == Use::Request {
            count(&self.counters.uncached);
        }
        chunk.retire();
        match chunk.window(range.start) {
            Some(_) => Ok(Arc::new(chunk)),
            None => Err(MapError::invalid(foreign.domid(), range.start)),
        }
    }

    /// Maps a range. Evicts chunks if the kernel has no memory, or no address space in this process, for it.
    fn map_evicting<F: ForeignMemory>(
        &self,
        foreign: &F,
        range: Range<u64>,
    ) -> Result<Chunk, MapError> {
        for _ in 1..MAX_TRIES {
            match self.map(foreign, range.clone()) {
                Err(error) if error.errno() == Some(libc::ENOMEM) && self.evict() => {}
                mapped => return mapped,
            }
        }
        self.map(foreign, range)
    }

    fn map<F: ForeignMemory>(&self, foreign: &F, range: Range<u64>) -> Result<Chunk, MapError> {
        let page = PAGE_SIZE as u64;
        let gfns: Vec<_> = (range.start / page..range.end / page).collect();
        count(&self.counters.map_calls);
        let (mapping, holes) = foreign.map_sparse(RW, &gfns)?;
        if holes.len() == gfns.len() && holes.iter().all(|&(_, errno)| errno == libc::ESRCH) {
            return Err(MapError::of_gfn(foreign.domid(), range.start, libc::ESRCH));
        }
        let page = foreign.kernel_page_size();
        Ok(Chunk::new(range, mapping, holes, page, self.counters.clone()))
    }

    /// Evicts unused chunks, the least recently used first, until there is room for one of `bytes`. False if
    /// there is no room, as too many are in use.
    fn make_room(&self, layout: &Layout, bytes: u64) -> bool {
        while layout.room(&self.counters, Use::Chunk) < bytes {
            if !layout.could_have_room(bytes) || !self.evict() {
                return false;
            }
        }
        true
    }

    /// Unmaps the chunk that was used least recently of those that nobody holds, if there is one.
    fn evict(&self) -> bool {
        // Unmapped without the lock.
        let oldest = lock(&self.cached).take_oldest();
        let evicted = oldest.is_some();
        if evicted {
            count(&self.counters.evictions);
        }
        evicted
    }
}
