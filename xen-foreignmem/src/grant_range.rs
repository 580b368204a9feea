//! Granted memory.

use std::ops::{Range, RangeInclusive};

use crate::address::GRANT_BIT;
use crate::page::PAGE_SIZE;

/// The address of a granted page.
pub(crate) fn grant_addr(gref: u32) -> u64 {
    GRANT_BIT | (u64::from(gref) * PAGE_SIZE as u64)
}

/// A range of granted memory: from `offset` on in page `first`, over `pages` references.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrantRange {
    pub(crate) first: u32,
    pub(crate) offset: usize,
    pub(crate) len: usize,
    pub(crate) pages: usize,
}

impl GrantRange {
    pub(crate) fn addr(self) -> u64 {
        grant_addr(self.first) + self.offset as u64
    }

    /// A page of the range, counted from 0: its reference, and which of its bytes are in the range.
    fn part(self, page: usize) -> (u32, Range<usize>) {
        let (base, end) = (page * PAGE_SIZE, self.offset + self.len);
        let bytes = self.offset.max(base) - base..end.min(base + PAGE_SIZE) - base;
        (self.first + page as u32, bytes)
    }

    /// A page of the range, counted from 0, as a range.
    pub(crate) fn page(self, page: usize) -> Self {
        let (first, bytes) = self.part(page);
        Self { first, offset: bytes.start, len: bytes.len(), pages: 1 }
    }

    /// The references.
    pub(crate) fn grefs(self) -> RangeInclusive<u32> {
        self.first..=self.first + (self.pages - 1) as u32
    }
}
