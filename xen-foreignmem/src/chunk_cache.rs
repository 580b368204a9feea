//! The chunks of a guest's RAM that are mapped.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::chunk::Chunk;
use crate::error::{MapError, MapTarget};
use crate::foreign::ForeignMemory;
use crate::layout::Layout;
use crate::mapping::Prot;
use crate::stats::{Counters, count};
use crate::{PAGE_SIZE, lock};

const RW: Prot = Prot::READ.union(Prot::WRITE);

/// The mapped chunks, by address: what every queue of a guest falls back to.
#[derive(Debug)]
pub(crate) struct ChunkCache {
    chunks: Mutex<BTreeMap<u64, Arc<Chunk>>>,
    /// Advances when a chunk is mapped: the time that "least recently" is counted in.
    clock: AtomicU64,
    counters: Arc<Counters>,
}

impl ChunkCache {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self { chunks: Mutex::default(), clock: AtomicU64::new(1), counters }
    }

    /// The time, to [`touch`](Chunk::touch) chunks with.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// The chunk that has the page of `addr`, an address in a bank, mapped if need be.
    ///
    /// The page alone is tried first, so that asking for what is not there costs one page, however
    /// large the chunks are; once it is there, the rest of its chunk is mapped with it.
    pub(crate) fn get<F: ForeignMemory>(
        &self,
        foreign: &F,
        layout: &Layout,
        addr: u64,
    ) -> Result<Arc<Chunk>, MapError> {
        let mut chunks = lock(&self.chunks);
        if let Some((_, chunk)) = chunks.range(..=addr).next_back()
            && chunk.window(addr).is_some()
        {
            chunk.touch(self.now());
            return Ok(chunk.clone());
        }
        let gfn = addr / PAGE_SIZE as u64;
        let error = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            MapError::new(foreign.domid(), MapTarget::Gfn(gfn), source)
        };
        let range = layout.chunk_of(addr).ok_or_else(|| error(libc::EINVAL))?;
        count(&self.counters.map_calls);
        drop(foreign.map(RW, &[gfn])?);
        if let Some(holey) = chunks.remove(&range.start) {
            holey.retire();
        }
        self.make_room(&mut chunks, layout, &range).ok_or_else(|| error(libc::ENOMEM))?;
        let chunk = Arc::new(self.map(foreign, range)?);
        chunks.insert(chunk.start(), chunk.clone());
        match chunk.window(addr) {
            Some(_) => Ok(chunk),
            // The guest gave the page back in between.
            None => Err(error(libc::EINVAL)),
        }
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
            let gfn = addr / PAGE_SIZE as u64;
            let error = |errno| {
                let source = io::Error::from_raw_os_error(errno);
                MapError::new(foreign.domid(), MapTarget::Gfn(gfn), source)
            };
            let chunk = layout.chunk_of(addr).ok_or_else(|| error(libc::EINVAL))?;
            addr = chunk.end;
            let mut chunks = lock(&self.chunks);
            if chunks.contains_key(&chunk.start) {
                continue;
            }
            if !self.has_room(layout, &chunk) {
                return Err(error(libc::ENOMEM));
            }
            let chunk = self.map(foreign, chunk)?;
            if !chunk.is_all_holes() {
                chunks.insert(chunk.start(), Arc::new(chunk));
            }
        }
        Ok(())
    }

    /// Forgets all chunks; guards keep theirs.
    pub(crate) fn clear(&self) {
        let chunks = std::mem::take(&mut *lock(&self.chunks));
        chunks.values().for_each(|chunk| chunk.retire());
    }

    fn map<F: ForeignMemory>(&self, foreign: &F, range: Range<u64>) -> Result<Chunk, MapError> {
        let page = PAGE_SIZE as u64;
        let gfns: Vec<_> = (range.start / page..range.end / page).collect();
        count(&self.counters.map_calls);
        let (mapping, holes) = foreign.map_sparse(RW, &gfns)?;
        if holes.len() == gfns.len() && holes.iter().all(|&(_, errno)| errno == libc::ESRCH) {
            let source = io::Error::from_raw_os_error(libc::ESRCH);
            return Err(MapError::new(foreign.domid(), MapTarget::Gfn(range.start / page), source));
        }
        let chunk = Chunk::new(range, mapping, holes, self.counters.clone());
        chunk.touch(self.clock.fetch_add(1, Ordering::Relaxed));
        Ok(chunk)
    }

    fn has_room(&self, layout: &Layout, range: &Range<u64>) -> bool {
        let mapped = self.counters.bytes.load(Ordering::Relaxed);
        let wanted = mapped.saturating_add(range.end - range.start);
        layout.budget_bytes().is_none_or(|budget| wanted <= budget)
    }

    /// Gives up chunks that nobody uses, the one used least recently first, until there is room.
    fn make_room(
        &self,
        chunks: &mut BTreeMap<u64, Arc<Chunk>>,
        layout: &Layout,
        range: &Range<u64>,
    ) -> Option<()> {
        if layout.budget_bytes().is_some_and(|budget| range.end - range.start > budget) {
            return None;
        }
        while !self.has_room(layout, range) {
            let (&start, _) = chunks
                .iter()
                .filter(|(_, chunk)| Arc::strong_count(chunk) == 1)
                .min_by_key(|(_, chunk)| chunk.last_used())?;
            chunks.remove(&start)?.retire();
            count(&self.counters.evictions);
        }
        Some(())
    }
}
