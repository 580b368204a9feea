//! Counters.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a [`DomainMemory`](crate::DomainMemory) has mapped, and what it did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Chunks of RAM that are mapped now, cached or held by a guard.
    pub chunks: u64,
    /// Their bytes, in whole pages of the kernel.
    pub bytes: u64,
    /// Calls that mapped RAM, single-page probes included.
    pub map_calls: u64,
    /// Chunks given up for the budget.
    pub evictions: u64,
    /// Accesses whose pages were mapped alone and not cached, as every chunk was in use.
    pub uncached: u64,
    /// Accesses that failed as the whole budget was in use.
    pub refusals: u64,
    /// Calls that mapped grants.
    pub grant_maps: u64,
    /// Calls that copied from or to grants.
    pub grant_copies: u64,
    /// Pieces that could not be copied to the guest when a guard was dropped.
    pub copy_failures: u64,
    /// Grants mappings that the kernel refused to give back.
    pub unmap_failures: u64,
}

/// [`Stats`], counting.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) chunks: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) map_calls: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) uncached: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) grant_maps: AtomicU64,
    pub(crate) grant_copies: AtomicU64,
    pub(crate) copy_failures: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self, unmap_failures: u64) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            chunks: load(&self.chunks),
            bytes: load(&self.bytes),
            map_calls: load(&self.map_calls),
            evictions: load(&self.evictions),
            uncached: load(&self.uncached),
            refusals: load(&self.refusals),
            grant_maps: load(&self.grant_maps),
            grant_copies: load(&self.grant_copies),
            copy_failures: load(&self.copy_failures),
            unmap_failures,
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
