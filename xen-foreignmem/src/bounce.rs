//! Bounce pages: local copies of granted pages while a request is served.

use std::ops::Range;
use std::sync::Mutex;

use memmap2::{MmapOptions, MmapRaw};
use vm_memory::VolatileSlice;

use crate::lock::lock;
use crate::page::PAGE_SIZE;

/// A bounded pool of local pages.
#[derive(Debug)]
pub(crate) struct BouncePool {
    /// None if it can't be allocated; grants are always mapped then.
    region: Option<MmapRaw>,
    free: Mutex<Vec<BouncePage>>,
}

/// A local copy of the granted page `gref`.
///
/// Only its *valid* bytes belong to this request: they were copied from the guest, or cleared. The *dirty*
/// bytes, and no others, are copied to the guest, so that only what the guest has offered for writing is
/// written.
#[derive(Debug, Default)]
pub(crate) struct BouncePage {
    index: usize,
    pub(crate) gref: u32,
    pub(crate) valid: ByteRanges,
    pub(crate) dirty: ByteRanges,
}

impl BouncePool {
    pub(crate) fn new(pages: usize) -> Self {
        let region = pages
            .checked_mul(PAGE_SIZE)
            .filter(|&len| len > 0)
            .and_then(|len| MmapOptions::new().len(len).map_anon().ok())
            .map(MmapRaw::from);
        let pages = if region.is_some() { pages } else { 0 };
        let free = (0..pages).rev().map(|index| BouncePage { index, ..Default::default() });
        Self { region, free: Mutex::new(free.collect()) }
    }

    /// A page for `gref`, without valid bytes.
    pub(crate) fn take(&self, gref: u32) -> Option<BouncePage> {
        let mut page = lock(&self.free).pop()?;
        page.gref = gref;
        Some(page)
    }

    pub(crate) fn give_back(&self, pages: impl Iterator<Item = BouncePage>) {
        let mut free = lock(&self.free);
        for mut page in pages {
            page.valid.clear();
            page.dirty.clear();
            free.push(page);
        }
    }

    /// Some of a page's bytes.
    pub(crate) fn slice(&self, page: &BouncePage, bytes: Range<usize>) -> VolatileSlice<'_> {
        let Some(region) = &self.region else {
            return VolatileSlice::from(&mut [][..]);
        };
        assert!(bytes.start <= bytes.end && bytes.end <= PAGE_SIZE);
        let start = region.as_mut_ptr().wrapping_add(page.index * PAGE_SIZE + bytes.start);
        // SAFETY: the pool's pages are its region, mapped as long as it is borrowed; `index` is one
        // of them and the bytes lie in the page. They are only ever accessed as volatile.
        unsafe { VolatileSlice::new(start, bytes.len()) }
    }
}

/// A set of bytes of a page: ascending ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ByteRanges(Vec<Range<usize>>);

impl ByteRanges {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().cloned()
    }

    pub(crate) fn insert(&mut self, mut new: Range<usize>) {
        if new.is_empty() {
            return;
        }
        let first = self.0.partition_point(|old| old.end < new.start);
        let last = self.0.partition_point(|old| old.start <= new.end);
        if let [low, ..] = &self.0[first..last] {
            new = new.start.min(low.start)..new.end.max(self.0[last - 1].end);
        }
        self.0.splice(first..last, [new]);
    }

    /// The parts of `range` that are not in the set.
    pub(crate) fn gaps(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut at = range.start;
        let ends = std::iter::once(range.end..range.end);
        self.iter().chain(ends).filter_map(move |next| {
            let gap = at..next.start.min(range.end);
            at = at.max(next.end);
            (!gap.is_empty()).then_some(gap)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn ranges_are_a_set_of_bytes(
            inserts in prop::collection::vec((0..64_usize, 0..16_usize), 0..12),
            query in (0..64_usize, 0..40_usize),
        ) {
            let mut model = [false; 128];
            let mut ranges = ByteRanges::default();
            for (start, len) in inserts {
                ranges.insert(start..start + len);
                model[start..start + len].fill(true);
            }
            let mut seen = [false; 128];
            let mut end = None;
            for range in ranges.iter() {
                prop_assert!(end.is_none_or(|end| range.start > end) && !range.is_empty());
                end = Some(range.end);
                seen[range].fill(true);
            }
            prop_assert_eq!(seen, model);
            let query = query.0..query.0 + query.1;
            let mut missing = [false; 128];
            for gap in ranges.gaps(query.clone()) {
                prop_assert!(!gap.is_empty());
                missing[gap].fill(true);
            }
            for at in 0..128 {
                prop_assert_eq!(missing[at], query.contains(&at) && !model[at], "byte {}", at);
            }
        }
    }

    #[test]
    fn the_pool_is_bounded_and_its_pages_come_back_clean() {
        let pool = BouncePool::new(2);
        let mut one = pool.take(1).unwrap();
        let two = pool.take(2).unwrap();
        assert!(pool.take(3).is_none());
        one.valid.insert(0..9);
        one.dirty.insert(0..9);
        let place = pool.slice(&one, 0..1).ptr_guard().as_ptr();
        assert_eq!(place.addr() % PAGE_SIZE, 0, "page-aligned, for direct I/O");
        pool.give_back([two, one].into_iter());
        let again = pool.take(4).unwrap();
        assert_eq!(pool.slice(&again, 0..1).ptr_guard().as_ptr(), place);
        assert_eq!((again.gref, again.valid.iter().count(), again.dirty.iter().count()), (4, 0, 0));
        assert!(BouncePool::new(0).take(1).is_none());
    }
}
