//! What a guard keeps mapped: chunks of RAM, mapped grants, and copies of grants.

use std::io;
use std::sync::Arc;

use crate::bounce::{BouncePool, Place};
use crate::bounced::Bounced;
use crate::chunk::Chunk;
use crate::copies::{Copies, copy};
use crate::error::{MapError, MapTarget};
use crate::grant::GrantTable;
use crate::grant_range::{GrantRange, grant_addr};
use crate::mapping::{Mapping, Prot};
use crate::page::PAGE_SIZE;
use crate::stats::{Counters, count};
use crate::window::Window;

/// What a guard keeps mapped. Nothing in it is moved or unmapped before [`release`](Pins::release).
#[derive(Debug, Default)]
pub(crate) struct Pins {
    chunks: Vec<Arc<Chunk>>,
    grants: Vec<MappedGrants>,
    pub(crate) bounced: Bounced,
    // Kept for their allocations.
    grefs: Vec<u32>,
    copies: Copies,
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

    /// Copies a granted range, as [`Bounced::access`] does. None if that can't be done.
    pub(crate) fn bounce<G: GrantTable>(
        &mut self,
        table: &G,
        pool: &BouncePool,
        range: GrantRange,
        access: (bool, bool),
        counters: &Counters,
    ) -> Result<Option<Place>, MapError> {
        let Self { bounced, copies, .. } = self;
        let place = bounced.access(pool, range, access, |wanted| {
            copies.with(|segments| {
                segments.extend(wanted);
                copy(table, segments, counters).result
            })
        });
        place.map_err(|source| MapError::new(table.domid(), MapTarget::Gref(range.first), source))
    }

    /// Copies what is dirty in the pages of a range to the guest.
    pub(crate) fn copy_out<G: GrantTable>(
        &mut self,
        table: &G,
        pool: &BouncePool,
        range: GrantRange,
        counters: &Counters,
    ) {
        let Self { bounced, copies, .. } = self;
        copies.with(|segments| {
            bounced.write_back_pages(pool, range.grefs(), segments);
            copy(table, segments, counters).count(counters);
        });
        bounced.clean_pages(range.grefs());
    }

    /// Copies everything dirty to the guest, before the release. Whether that was done.
    pub(crate) fn copy_all_out<G: GrantTable>(
        &mut self,
        table: &G,
        pool: &BouncePool,
        counters: &Counters,
    ) -> bool {
        let Self { bounced, copies, .. } = self;
        copies.with(|segments| {
            bounced.write_back(pool, segments);
            let copied = copy(table, segments, counters);
            copied.count(counters);
            copied.result.is_ok()
        })
    }

    /// Releases everything. The grants are unmapped when it returns.
    pub(crate) fn release(&mut self, pool: Option<&BouncePool>) {
        self.grants.clear();
        self.chunks.clear();
        if let Some(pool) = pool.filter(|_| !self.bounced.is_empty()) {
            self.bounced.release(pool);
        }
    }
}
