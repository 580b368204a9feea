//! The granted ranges of a guard that are copied.

use std::io;
use std::ops::RangeInclusive;

use crate::bounce::{BouncePool, Place};
use crate::grant::CopySegment;
use crate::grant_range::{GrantRange, grant_addr};
use crate::page::PAGE_SIZE;

/// The granted ranges of one guard of which there are local copies.
///
/// What is *dirty*, and nothing else, is copied to the guest, so that only what the guest has offered for
/// writing is written.
#[derive(Debug, Default)]
pub(crate) struct Bounced {
    /// In ascending order; no two overlap.
    ranges: Vec<Copied>,
    /// Parts of ranges that aren't dirty as a whole. Few: what a driver offers is a range.
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Copied {
    addr: u64,
    place: Place,
    content: Content,
    /// All of it goes to the guest.
    dirty: bool,
}

/// What a copy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// What an earlier request left there.
    Stale,
    /// As above, until the copy whose segments begin at this index has been made.
    Fetching(usize),
    /// The guest's bytes, or zeroes.
    Valid,
}

/// Bytes of a copy that go to the guest.
#[derive(Clone, Copy, Debug)]
struct Part {
    addr: u64,
    place: Place,
}

impl Part {
    fn end(&self) -> u64 {
        self.addr + self.place.len() as u64
    }

    fn pieces(self) -> impl Iterator<Item = (u32, u16, Place)> {
        pieces(self.addr, self.place)
    }
}

/// Where a range is among those that are copied.
enum Found {
    /// Within the one with this index.
    Within(usize),
    /// In none; it would have this index.
    Nowhere(usize),
    /// Partly.
    Partly,
}

impl Copied {
    fn end(&self) -> u64 {
        self.addr + self.place.len() as u64
    }

    fn pieces(&self) -> impl Iterator<Item = (u32, u16, Place)> + use<> {
        pieces(self.addr, self.place)
    }

    /// The place of a range within this one.
    fn place_of(&self, addr: u64, len: usize) -> Place {
        let at = (addr - self.addr) as usize;
        self.place.part(at..at + len)
    }
}

/// The parts of a range in one granted page each: the reference, the offset in the page, and the part's place.
fn pieces(addr: u64, place: Place) -> impl Iterator<Item = (u32, u16, Place)> {
    let (mut done, len) = (0, place.len());
    std::iter::from_fn(move || {
        let at = addr + done as u64;
        let offset = (at % PAGE_SIZE as u64) as usize;
        let count = (PAGE_SIZE - offset).min(len - done);
        if count == 0 {
            return None;
        }
        let part = place.part(done..done + count);
        done += count;
        // Bit 63 marks a grant; the reference is 32 bits.
        Some(((at / PAGE_SIZE as u64) as u32, offset as u16, part))
    })
}

impl Bounced {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    fn find(&self, addr: u64, len: usize) -> Found {
        let end = addr + len as u64;
        let after = self.ranges.partition_point(|copied| copied.addr <= addr);
        let before = after.checked_sub(1).and_then(|index| Some((index, self.ranges.get(index)?)));
        match (before, self.ranges.get(after)) {
            (Some((index, copied)), _) if end <= copied.end() => Found::Within(index),
            (Some((_, copied)), _) if addr < copied.end() => Found::Partly,
            (_, Some(copied)) if copied.addr < end => Found::Partly,
            _ => Found::Nowhere(after),
        }
    }

    /// The index of a copy for a range, a new one if need be. None if the range is partly copied, or the pool
    /// has no room.
    fn copy_of(&mut self, pool: &BouncePool, range: GrantRange) -> Option<usize> {
        match self.find(range.addr(), range.len) {
            Found::Within(index) => Some(index),
            Found::Partly => None,
            Found::Nowhere(index) => {
                let place = pool.take(range.offset, range.len)?;
                let content = Content::Stale;
                let copied = Copied { addr: range.addr(), place, content, dirty: false };
                self.ranges.insert(index, copied);
                Some(index)
            }
        }
    }

    /// Makes a local copy of a range, and returns its place: the guest's bytes if it is read, else zeroes, where
    /// it is not there yet. If it is written, its bytes are copied to the guest later. None if there is no room,
    /// or a part of the range is copied already.
    ///
    /// # Errors
    ///
    /// That of `fetch`, which copies all segments from the guest.
    pub(crate) fn access<'p>(
        &mut self,
        pool: &'p BouncePool,
        range: GrantRange,
        (read, write): (bool, bool),
        fetch: impl FnOnce(&mut dyn Iterator<Item = CopySegment<'p>>) -> io::Result<()>,
    ) -> Result<Option<Place>, io::Error> {
        let Some(index) = self.copy_of(pool, range) else { return Ok(None) };
        let Some(copied) = self.ranges.get_mut(index) else { return Ok(None) };
        let whole = copied.place.len() == range.len;
        if copied.content != Content::Valid {
            if read || !whole {
                fetch(&mut copied.pieces().map(|(gref, offset, place)| {
                    CopySegment::from_guest(gref, offset, pool.slice(place))
                }))?;
            } else {
                pool.clear(copied.place);
            }
            copied.content = Content::Valid;
        }
        let place = copied.place_of(range.addr(), range.len);
        if write && !copied.dirty {
            if whole {
                copied.dirty = true;
            } else {
                self.mark(Part { addr: range.addr(), place });
            }
        }
        Ok(Some(place))
    }

    fn mark(&mut self, new: Part) {
        let known = |old: &Part| old.addr <= new.addr && new.end() <= old.end();
        if !self.parts.iter().rev().any(known) {
            self.parts.push(new);
        }
    }

    /// Takes a place for a range that will be read, and adds the segments by which it is copied from the guest
    /// to `segments`. Does nothing if it is there, or there is no room.
    pub(crate) fn announce<'p>(
        &mut self,
        pool: &'p BouncePool,
        range: GrantRange,
        segments: &mut Vec<CopySegment<'p>>,
    ) {
        let Some(index) = self.copy_of(pool, range) else { return };
        let Some(copied) = self.ranges.get_mut(index) else { return };
        if copied.content == Content::Stale {
            copied.content = Content::Fetching(segments.len());
            segments.extend(copied.pieces().map(|(gref, offset, place)| {
                CopySegment::from_guest(gref, offset, pool.slice(place))
            }));
        }
    }

    /// Notes of a range that was announced whether it is there, by the segments after the copy; none, if that
    /// failed.
    pub(crate) fn settle(&mut self, range: GrantRange, segments: &[CopySegment<'_>]) {
        let Found::Within(index) = self.find(range.addr(), range.len) else { return };
        let Some(copied) = self.ranges.get_mut(index) else { return };
        if let Content::Fetching(first) = copied.content {
            let count = copied.pieces().count();
            let its = segments.get(first..first + count);
            let done = its.is_some_and(|its| its.iter().all(CopySegment::is_done));
            copied.content = if done { Content::Valid } else { Content::Stale };
        }
    }

    /// What is dirty, in pieces of a page.
    fn dirty(&self) -> impl Iterator<Item = (u32, u16, Place)> {
        let whole = self.ranges.iter().filter(|copied| copied.dirty).flat_map(Copied::pieces);
        whole.chain(self.parts.iter().flat_map(|part| part.pieces()))
    }

    /// Adds the segments by which all that is dirty is copied to the guest.
    pub(crate) fn write_back<'p>(&self, pool: &'p BouncePool, segments: &mut Vec<CopySegment<'p>>) {
        segments.extend(
            self.dirty().map(|(gref, offset, place)| {
                CopySegment::to_guest(gref, offset, pool.slice(place))
            }),
        );
    }

    /// How many segments [`write_back`](Self::write_back) adds.
    pub(crate) fn dirty_pieces(&self) -> usize {
        self.dirty().count()
    }

    /// Nothing is dirty any more.
    pub(crate) fn clean(&mut self) {
        self.parts.clear();
        self.ranges.iter_mut().for_each(|copied| copied.dirty = false);
    }

    /// As [`write_back`](Self::write_back), for what is in these pages.
    pub(crate) fn write_back_pages<'p>(
        &self,
        pool: &'p BouncePool,
        grefs: RangeInclusive<u32>,
        segments: &mut Vec<CopySegment<'p>>,
    ) {
        let dirty = self.dirty().filter(|(gref, ..)| grefs.contains(gref));
        segments.extend(
            dirty.map(|(gref, offset, place)| {
                CopySegment::to_guest(gref, offset, pool.slice(place))
            }),
        );
    }

    /// As [`clean`](Self::clean), for what is in these pages.
    pub(crate) fn clean_pages(&mut self, grefs: RangeInclusive<u32>) {
        let rest = self.dirty().filter(|(gref, ..)| !grefs.contains(gref));
        let rest = rest.map(|(gref, offset, place)| Part {
            addr: grant_addr(gref) + u64::from(offset),
            place,
        });
        let rest = rest.collect();
        self.clean();
        self.parts = rest;
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self, pool: &BouncePool) {
        self.parts.clear();
        pool.give_back(self.ranges.drain(..).map(|copied| copied.place));
    }
}
