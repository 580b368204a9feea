//! What a guard keeps mapped: chunks of RAM, mapped grants, and bounce pages for grants.

use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::VolatileSlice;

use crate::address::GRANT_BIT;
use crate::bounce::{BouncePage, BouncePool};
use crate::chunk::Chunk;
use crate::error::{MapError, MapTarget};
use crate::grant::{CopySegment, GrantTable};
use crate::mapping::{Mapping, Prot};
use crate::page::PAGE_SIZE;
use crate::stats::{Counters, count};
use crate::window::Window;

/// What a guard keeps mapped. Nothing in it is moved or unmapped before [`release`](Pins::release).
#[derive(Debug, Default)]
pub(crate) struct Pins {
    chunks: Vec<Arc<Chunk>>,
    grants: Vec<MappedGrants>,
    bounced: Vec<BouncePage>,
    // Kept for their allocations.
    grefs: Vec<u32>,
    segments: Vec<CopySegment<'static>>,
}

#[derive(Debug)]
struct MappedGrants {
    first: u32,
    mapping: Mapping,
}

impl MappedGrants {
    fn window(&self) -> Window {
        let Self { first, mapping } = self;
        let writable = mapping.prot().contains(Prot::WRITE);
        Window::new(grant_addr(*first), mapping.len(), mapping.as_ptr(), writable)
    }
}

/// The address of a granted page.
fn grant_addr(gref: u32) -> u64 {
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
    fn addr(self) -> u64 {
        grant_addr(self.first) + self.offset as u64
    }

    /// A page of the range, counted from 0: its reference, and which of its bytes are in the range.
    pub(crate) fn part(self, page: usize) -> (u32, Range<usize>) {
        let (base, end) = (page * PAGE_SIZE, self.offset + self.len);
        let bytes = self.offset.max(base) - base..end.min(base + PAGE_SIZE) - base;
        (self.first + page as u32, bytes)
    }

    /// A page of the range, counted from 0, as a range.
    pub(crate) fn page(self, page: usize) -> Self {
        let (first, bytes) = self.part(page);
        Self { first, offset: bytes.start, len: bytes.len(), pages: 1 }
    }

    fn parts(self) -> impl Iterator<Item = (u32, Range<usize>)> {
        (0..self.pages).map(move |page| self.part(page))
    }

    /// The references.
    pub(crate) fn grefs(self) -> RangeInclusive<u32> {
        self.first..=self.first + (self.pages - 1) as u32
    }
}

impl Pins {
    /// Where an address of RAM is mapped, by a chunk that is held already.
    pub(crate) fn ram(&self, addr: u64) -> Option<Window> {
        self.chunks.iter().rev().find_map(|chunk| chunk.window(addr))
    }

    pub(crate) fn hold(&mut self, chunk: Arc<Chunk>) {
        self.chunks.push(chunk);
    }

    /// Where a granted range is mapped for this access already.
    pub(crate) fn mapped(&self, range: GrantRange, write: bool) -> Option<*mut u8> {
        self.grants.iter().rev().find_map(|held| {
            let (local, rest) = held.window().find(range.addr(), write)?;
            (range.len as u64 <= rest).then_some(local)
        })
    }

    /// Whether a page of a granted range is mapped, for whatever access.
    pub(crate) fn maps_any_of(&self, range: GrantRange) -> bool {
        let (start, end) = (range.addr(), range.addr() + range.len as u64);
        self.grants
            .iter()
            .map(MappedGrants::window)
            .any(|held| held.start < end && start < held.end)
    }

    /// Whether each page of a granted range is mapped for this access already, wherever.
    pub(crate) fn mapped_by_pages(&self, range: GrantRange, write: bool) -> bool {
        (0..range.pages).all(|page| self.mapped(range.page(page), write).is_some())
    }

    /// Maps a granted range, at most `max` grants with all that is mapped. In one piece, where the kernel can;
    /// page by page otherwise, and then it is the first page's window.
    pub(crate) fn map<G: GrantTable>(
        &mut self,
        table: &G,
        range: GrantRange,
        prot: Prot,
        max: usize,
        counters: &Counters,
    ) -> Result<Window, MapError> {
        let held: usize = self.grants.iter().map(|held| held.mapping.len() / PAGE_SIZE).sum();
        if held.saturating_add(range.pages) > max {
            let source = io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(MapError::new(table.domid(), MapTarget::Gref(range.first), source));
        }
        self.grefs.clear();
        self.grefs.extend(range.grefs());
        let before = self.grants.len();
        for grefs in self.grefs.chunks(table.grants_per_mapping()) {
            count(&counters.grant_maps);
            match (table.map(grefs, prot), grefs) {
                (Ok(mapping), &[first, ..]) => self.grants.push(MappedGrants { first, mapping }),
                (Err(error), _) => {
                    self.grants.truncate(before);
                    return Err(error);
                }
                (Ok(_), []) => {}
            }
        }
        let first = self.grants.get(before).map(MappedGrants::window);
        first.ok_or_else(|| {
            let source = io::Error::from_raw_os_error(libc::EINVAL);
            MapError::new(table.domid(), MapTarget::Gref(range.first), source)
        })
    }

    /// The local page that stands for `gref`, if there is one.
    pub(crate) fn bounced(&self, gref: u32) -> Option<&BouncePage> {
        self.bounced.iter().rev().find(|page| page.gref == gref)
    }

    /// Takes bounce pages for a granted range: its bytes are copied from the guest for `read`, or cleared, and
    /// are copied to the guest later if `write`. Bytes that are valid already are kept. False if the pool is
    /// used up.
    pub(crate) fn bounce<G: GrantTable>(
        &mut self,
        table: &G,
        pool: &BouncePool,
        range: GrantRange,
        access: (bool, bool),
        counters: &Counters,
    ) -> Result<bool, MapError> {
        for (gref, _) in range.parts() {
            if self.bounced(gref).is_none() {
                match pool.take(gref) {
                    Some(page) => self.bounced.push(page),
                    None => return Ok(false),
                }
            }
        }
        let (read, write) = access;
        let mut segments = std::mem::take(&mut self.segments);
        for (gref, bytes) in range.parts() {
            let Some(page) = self.bounced.iter_mut().rev().find(|page| page.gref == gref) else {
                continue;
            };
            for gap in page.valid.gaps(bytes.clone()) {
                let local = pool.slice(page, gap.clone());
                if read {
                    segments.push(CopySegment::from_guest(gref, gap.start as u16, local));
                } else {
                    clear(&local);
                }
            }
        }
        let copied = copy(table, &mut segments, counters);
        self.segments = emptied(segments);
        if let Some((gref, source)) = copied.failure {
            return Err(MapError::new(table.domid(), MapTarget::Gref(gref), source));
        }
        for (gref, bytes) in range.parts() {
            if let Some(page) = self.bounced.iter_mut().rev().find(|page| page.gref == gref) {
                page.valid.insert(bytes.clone());
                if write {
                    page.dirty.insert(bytes);
                }
            }
        }
        Ok(true)
    }

    /// Copies the dirty bytes of the bounce pages for these references to the guest.
    pub(crate) fn copy_out<G: GrantTable>(
        &mut self,
        table: &G,
        pool: &BouncePool,
        grefs: RangeInclusive<u32>,
        counters: &Counters,
    ) {
        let mut segments = std::mem::take(&mut self.segments);
        for page in self.bounced.iter_mut().filter(|page| grefs.contains(&page.gref)) {
            for bytes in page.dirty.iter() {
                let local = pool.slice(page, bytes.clone());
                segments.push(CopySegment::to_guest(page.gref, bytes.start as u16, local));
            }
            page.dirty.clear();
        }
        let copied = copy(table, &mut segments, counters);
        self.segments = emptied(segments);
        counters.copy_failures.fetch_add(copied.failures, Ordering::Relaxed);
    }

    /// Releases everything. The grants are unmapped when it returns.
    pub(crate) fn release(&mut self, pool: Option<&BouncePool>) {
        self.grants.clear();
        self.chunks.clear();
        if let Some(pool) = pool.filter(|_| !self.bounced.is_empty()) {
            pool.give_back(self.bounced.drain(..));
        }
    }

    pub(crate) fn has_bounced(&self) -> bool {
        !self.bounced.is_empty()
    }
}

struct Copied {
    failures: u64,
    failure: Option<(u32, io::Error)>,
}

/// Copies all segments in one call, if there are any.
fn copy<G: GrantTable>(table: &G, segments: &mut [CopySegment<'_>], counters: &Counters) -> Copied {
    let Some(first) = segments.first().map(CopySegment::gref) else {
        return Copied { failures: 0, failure: None };
    };
    count(&counters.grant_copies);
    if let Err(error) = table.copy(segments) {
        return Copied { failures: segments.len() as u64, failure: Some((first, error)) };
    }
    let mut failed = segments.iter().filter(|segment| !segment.is_done()).peekable();
    let failure = failed.peek().map(|segment| {
        let reason = format!("grant copy status {}", segment.status());
        (segment.gref(), io::Error::other(reason))
    });
    Copied { failures: failed.count() as u64, failure }
}

/// The vector without its elements, so that they need not live as long as its allocation.
fn emptied<'a>(mut segments: Vec<CopySegment<'_>>) -> Vec<CopySegment<'a>> {
    segments.clear();
    segments.into_iter().map_while(|_| None).collect()
}

fn clear(local: &VolatileSlice<'_>) {
    local.copy_from(&[0_u8; PAGE_SIZE][..local.len()]);
}
