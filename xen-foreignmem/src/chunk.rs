//! A chunk of RAM, mapped.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::foreign::Holes;
use crate::mapping::Mapping;
use crate::page::PAGE_SIZE;
use crate::stats::{Counters, count};
use crate::window::Window;

/// Consecutive frames of a guest's RAM, mapped as long as there is a reference to the chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    range: Range<u64>,
    mapping: Mapping,
    /// Ascending indices of the pages that could not be mapped.
    holes: Vec<usize>,
    /// Whether new accesses may use it: it was neither evicted nor invalidated.
    current: AtomicBool,
    last_used: AtomicU64,
    /// Bytes that it counts for in the budget: whole pages of the kernel.
    cost: u64,
    counters: Arc<Counters>,
}

impl Chunk {
    pub(crate) fn new(
        range: Range<u64>,
        mapping: Mapping,
        holes: Holes,
        kernel_page_size: usize,
        counters: Arc<Counters>,
    ) -> Self {
        let cost = mapping.len().next_multiple_of(kernel_page_size) as u64;
        count(&counters.chunks);
        counters.bytes.fetch_add(cost, Ordering::Relaxed);
        Self {
            range,
            mapping,
            holes: holes.into_iter().map(|(index, _)| index).collect(),
            current: AtomicBool::new(true),
            last_used: AtomicU64::new(0),
            cost,
            counters,
        }
    }

    pub(crate) fn start(&self) -> u64 {
        self.range.start
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.mapping.len() as u64
    }

    /// The mapped pages around `addr`, up to the next holes; None if `addr` is not mapped here.
    pub(crate) fn window(&self, addr: u64) -> Option<Window> {
        if !self.range.contains(&addr) {
            return None;
        }
        let page = (addr - self.range.start) as usize / PAGE_SIZE;
        let next = self.holes.partition_point(|&hole| hole < page);
        if self.holes.get(next) == Some(&page) {
            return None;
        }
        let first =
            next.checked_sub(1).map_or(0, |previous| (self.holes[previous] + 1) * PAGE_SIZE);
        let end = self.holes.get(next).map_or(self.mapping.len(), |&hole| hole * PAGE_SIZE);
        let local = self.mapping.as_ptr().wrapping_add(first);
        Some(Window::new(self.range.start + first as u64, end - first, local, true))
    }

    pub(crate) fn is_all_holes(&self) -> bool {
        self.holes.len() * PAGE_SIZE == self.mapping.len()
    }

    /// Takes it out of use for new accesses. References keep it mapped.
    pub(crate) fn retire(&self) {
        self.current.store(false, Ordering::Release);
    }

    fn is_current(&self) -> bool {
        self.current.load(Ordering::Acquire)
    }

    pub(crate) fn touch(&self, now: u64) {
        // Stored only if it changes, so that queues that share the chunk don't contend for the cache line.
        if self.last_used.load(Ordering::Relaxed) != now {
            self.last_used.store(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.counters.chunks.fetch_sub(1, Ordering::Relaxed);
        self.counters.bytes.fetch_sub(self.cost, Ordering::Relaxed);
    }
}

/// The chunks that one queue has used lately, found without a lock that other queues take. It keeps no chunk
/// mapped.
#[derive(Debug)]
pub(crate) struct Lookaside {
    slots: [Weak<Chunk>; Lookaside::SLOTS],
}

impl Lookaside {
    const SLOTS: usize = 256;

    pub(crate) fn new() -> Self {
        Self { slots: [const { Weak::new() }; Self::SLOTS] }
    }

    /// The chunk with this number, if it is here, in use, and has the address mapped.
    pub(crate) fn get(&self, number: u64, addr: u64) -> Option<Arc<Chunk>> {
        let chunk = self.slots[Self::slot(number)].upgrade()?;
        (chunk.is_current() && chunk.window(addr).is_some()).then_some(chunk)
    }

    pub(crate) fn put(&mut self, number: u64, chunk: &Arc<Chunk>) {
        self.slots[Self::slot(number)] = Arc::downgrade(chunk);
    }

    fn slot(number: u64) -> usize {
        number as usize % Self::SLOTS
    }
}
