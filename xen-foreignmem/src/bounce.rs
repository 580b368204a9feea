//! Bounce memory: local copies of granted memory while a request is served.

use std::ops::Range;
use std::sync::Mutex;

use memmap2::{MmapOptions, MmapRaw};
use vm_memory::VolatileSlice;

use crate::free_runs::FreeRuns;
use crate::lock::lock;
use crate::page::PAGE_SIZE;

/// Bytes of a place for a short range, as a header or a status. Xen looks a local page up anew only where a
/// segment of a copy is in another one than the segment before (`gnttab_copy_buf_valid`), so short ranges
/// that share a page cost less.
const SHORT: usize = 64;

/// A bounded pool of local memory for copies: pages, and as many places for short ranges.
#[derive(Debug)]
pub(crate) struct BouncePool {
    /// The places for short ranges, then the pages. None if it can't be allocated; grants are always mapped
    /// then.
    region: Option<MmapRaw>,
    /// Bytes of the places for short ranges: whole pages.
    short_bytes: usize,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    short: FreeRuns,
    pages: FreeRuns,
}

/// A local copy's place in the pool it was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    start: usize,
    len: usize,
}

impl Place {
    /// A part of it.
    pub(crate) fn part(self, bytes: Range<usize>) -> Self {
        assert!(bytes.start <= bytes.end && bytes.end <= self.len);
        Self { start: self.start + bytes.start, len: bytes.len() }
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    fn is_short(self) -> bool {
        self.len <= SHORT
    }

    /// The pages that it touches.
    fn pages(self) -> usize {
        (self.start % PAGE_SIZE + self.len).div_ceil(PAGE_SIZE)
    }
}

impl BouncePool {
    pub(crate) fn new(pages: usize) -> Self {
        let short_bytes = pages.div_ceil(PAGE_SIZE / SHORT).saturating_mul(PAGE_SIZE);
        let region = pages
            .checked_mul(PAGE_SIZE)
            .and_then(|bytes| bytes.checked_add(short_bytes))
            .filter(|&len| len > 0)
            .and_then(|len| MmapOptions::new().len(len).map_anon().ok())
            .map(MmapRaw::from);
        let pages = if region.is_some() { pages } else { 0 };
        let free = Free { short: FreeRuns::new(pages), pages: FreeRuns::new(pages) };
        Self { region, short_bytes, free: Mutex::new(free) }
    }

    /// A place for `len` bytes, at least one, that begin at `offset` of a page. They begin at the same offset of
    /// a page here, but for a short range.
    pub(crate) fn take(&self, offset: usize, len: usize) -> Option<Place> {
        let mut free = lock(&self.free);
        if len <= SHORT {
            return Some(Place { start: free.short.take(1)? * SHORT, len });
        }
        let page = free.pages.take((offset + len).div_ceil(PAGE_SIZE))?;
        Some(Place { start: self.short_bytes + page * PAGE_SIZE + offset, len })
    }

    /// Gives places back.
    pub(crate) fn give_back(&self, places: impl Iterator<Item = Place>) {
        let mut free = lock(&self.free);
        for place in places {
            if place.is_short() {
                free.short.give_back(place.start / SHORT, 1);
            } else {
                let page = (place.start - self.short_bytes) / PAGE_SIZE;
                free.pages.give_back(page, place.pages());
            }
        }
    }

    /// The memory of a place, or of a part of one.
    #[inline]
    pub(crate) fn slice(&self, place: Place) -> VolatileSlice<'_> {
        let Some(region) = &self.region else {
            return VolatileSlice::from(&mut [][..]);
        };
        let Place { start, len } = place;
        assert!(start <= region.len() && len <= region.len() - start);
        // SAFETY: the place is in the region, which is mapped as long as the pool is borrowed. Its memory is only
        // ever accessed as volatile.
        unsafe { VolatileSlice::new(region.as_mut_ptr().wrapping_add(start), len) }
    }

    /// Fills a place with zeroes.
    pub(crate) fn clear(&self, place: Place) {
        let slice = self.slice(place);
        // SAFETY: the slice is this pool's memory, which no other domain shares, and the place is that of one
        // request, which has not been given a slice of it yet.
        unsafe { slice.ptr_guard_mut().as_ptr().write_bytes(0, slice.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(pool: &BouncePool, place: Place) -> usize {
        pool.slice(place).ptr_guard().as_ptr().addr()
    }

    #[test]
    fn the_pool_is_bounded_and_its_memory_is_used_again() {
        let pool = BouncePool::new(3);
        let two = pool.take(4000, 200).unwrap();
        assert_eq!(address(&pool, two) % PAGE_SIZE, 4000, "aligned as the guest's, for direct I/O");
        let one = pool.take(0, 4096).unwrap();
        assert_eq!(pool.take(0, 65), None);
        pool.give_back([two].into_iter());
        assert_eq!(pool.take(0, 4097), Some(Place { start: two.start - 4000, len: 4097 }));
        pool.give_back([one].into_iter());
        assert_eq!(pool.take(0, 4096), Some(one));
        assert_eq!(BouncePool::new(0).take(0, 1), None);
    }

    #[test]
    fn short_ranges_share_a_page() {
        let pool = BouncePool::new(64);
        let places: Vec<_> = (0..64).map_while(|n| pool.take(n, 64)).collect();
        assert_eq!(places.len(), 64);
        let page = address(&pool, places[0]) / PAGE_SIZE;
        assert!(places.iter().all(|&place| address(&pool, place) / PAGE_SIZE == page));
        assert_eq!(pool.take(0, 1), None);
        pool.give_back(places.into_iter().rev());
        assert!(pool.take(0, 1).is_some());
    }

    #[test]
    fn what_is_cleared_is_zero_and_nothing_beside_it() {
        let pool = BouncePool::new(2);
        let place = pool.take(0, 8192).unwrap();
        pool.slice(place).copy_from(&[7_u8; 8192][..]);
        pool.clear(place.part(100..5000));
        let mut bytes = [0_u8; 8192];
        pool.slice(place).copy_to(&mut bytes[..]);
        assert!(bytes[..100].iter().chain(&bytes[5000..]).all(|&byte| byte == 7));
        assert!(bytes[100..5000].iter().all(|&byte| byte == 0));
    }
}
