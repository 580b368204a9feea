//! A guest's memory as one request, or one queue's rings, sees it.

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryResult, Permissions, VolatileSlice,
};

use crate::address::Place;
use crate::error::MapError;
use crate::foreign::ForeignMemory;
use crate::grant::GrantTable;
use crate::grant_range::GrantRange;
use crate::handle::Handle;
use crate::lock::lock;
use crate::mapping::Prot;
use crate::physical::{NoPhysicalMemory, invalid_address};
use crate::pins::Pins;
use crate::window_cache::WindowCache;

/// The guest's memory behind a [`Guard`](crate::Guard): a [`GuestMemory`].
///
/// Memory that was looked up stays at its address until the guard's last clone is dropped.
///
/// * An address without bit 63 is RAM. A range must lie in one bank and may span chunks.
/// * An address with bit 63 is `1 << 63 | grant reference << 12 | offset`; a range over several
///   pages uses consecutive references. Without [`Permissions::Write`] it is mapped read-only.
///
/// Ranges of one guard that overlap see each other's bytes. The exception is granted memory that is
/// first accessed by a small range, so copied, and then by a larger one, so mapped: slices of the
/// small one must not be written any more.
///
/// [`check_range`](GuestMemory::check_range) tells only whether a range is valid. Whether the guest has that
/// memory is found by [`get_slices`](GuestMemory::get_slices).
pub struct PinnedMemory<F: ForeignMemory, G: GrantTable> {
    handle: Arc<Handle<F, G>>,
    /// The first windows that were used of what the pins hold.
    windows: WindowCache,
    pins: Mutex<Pins>,
}

impl<F: ForeignMemory, G: GrantTable> PinnedMemory<F, G> {
    pub(crate) fn new(handle: Arc<Handle<F, G>>) -> Self {
        Self { handle, windows: WindowCache::default(), pins: Mutex::default() }
    }

    /// Releases everything. The allocations are kept for the next guard.
    pub(crate) fn release(&mut self) {
        self.windows.clear();
        let pins = self.pins.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Handle { domain, pool, .. } = &*self.handle;
        if let (Some(grants), Some(pool)) = (&domain.grants, pool) {
            pins.copy_all_out(&**grants, pool, &domain.counters);
        }
        pins.release(pool.as_ref());
    }

    /// Has `work` done on the copies of a range, if it is one that is copied, and on its guard's.
    pub(crate) fn with_copied(
        &self,
        addr: GuestAddress,
        count: usize,
        work: impl FnOnce(&mut Pins, GrantRange),
    ) {
        let copied = 1..=self.handle.domain.layout.copy_max_bytes();
        if copied.contains(&count)
            && let Ok(Place::Grants { first, offset, pages }) = Place::of(addr, count)
        {
            let range = GrantRange { first, offset, len: count, pages };
            let mut pins = lock(&self.pins);
            if !pins.maps_any_of(range) {
                work(&mut pins, range);
            }
        }
    }

    /// The pins, of whoever has no clones.
    pub(crate) fn pins(&mut self) -> &mut Pins {
        self.pins.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory that the pins keep in place.
    fn slice<'a>(&'a self, start: *mut u8, len: usize) -> VolatileSlice<'a> {
        // SAFETY: the callers found `len` bytes at `start` in what the pins hold, which stays
        // mapped until `release`; that takes `&mut self`, so the borrow of the slice is over then. It
        // is only ever accessed as volatile.
        unsafe { VolatileSlice::new(start, len) }
    }

    /// The RAM from `addr` on, at most up to `end`, at least one byte.
    fn ram(&self, addr: u64, end: u64) -> GuestMemoryResult<VolatileSlice<'_>> {
        let invalid = || invalid_address(GuestAddress(addr));
        let mut pins = lock(&self.pins);
        let handle = &*self.handle;
        let held = pins.ram(addr).filter(|window| {
            // A ring is one piece, though parts of it share pages with what was mapped before.
            !handle.is_for_rings() || window.find(addr, true).is_some_and(|(_, n)| n >= end - addr)
        });
        let window = match held {
            Some(window) => window,
            None => {
                let chunk = handle.chunk(addr..end)?;
                let window = chunk.window(addr).ok_or_else(invalid)?;
                pins.hold(chunk);
                self.windows.add(&mut pins, window);
                window
            }
        };
        let (start, rest) = window.find(addr, true).ok_or_else(invalid)?;
        Ok(self.slice(start, rest.min(end - addr) as usize))
    }

    /// Makes a granted range accessible: the walk over it.
    fn grant(
        &self,
        addr: GuestAddress,
        range: GrantRange,
        access: Permissions,
    ) -> GuestMemoryResult<Walk> {
        let handle = &*self.handle;
        let domain = &*handle.domain;
        let table = &**domain.grants.as_ref().ok_or(invalid_address(addr))?;
        let write = access.has_write();
        let mut pins = lock(&self.pins);
        let len = range.len;
        if let Some(start) = pins.mapped(range, write) {
            return Ok(Walk::Mapped { start, len });
        }
        let by_pages = range.pages > table.grants_per_mapping();
        if by_pages && pins.mapped_by_pages(range, write) {
            return Ok(Walk::Granted { range, page: 0, write });
        }
        if let Some(pool) = &handle.pool {
            let access = (access.allow(Permissions::Read), write);
            // What is mapped already is not copied as well: a copy that goes to the guest at the end would not be seen
            // through the mapping.
            if range.len <= domain.layout.copy_max_bytes()
                && !pins.maps_any_of(range)
                && let Some(place) =
                    pins.bounce(table, pool, range, access, &domain.counters).map_err(failed)?
            {
                let start = pool.slice(place).ptr_guard_mut().as_ptr();
                return Ok(Walk::Mapped { start, len });
            }
            if !pins.bounced.is_empty() {
                pins.copy_out(table, pool, range, &domain.counters);
            }
        }
        let mut map = |prot| {
            let max = domain.layout.max_grants();
            pins.map(table, range, prot, max, &domain.counters)
        };
        let both = Prot::READ | Prot::WRITE;
        let window = if write {
            map(both)
        } else if handle.is_for_rings() {
            // A ring that is read first is often written next, unless it was granted read-only.
            map(both).or_else(|_| map(Prot::READ))
        } else {
            map(Prot::READ)
        }
        .map_err(failed)?;
        self.windows.add(&mut pins, window);
        if by_pages {
            return Ok(Walk::Granted { range, page: 0, write });
        }
        let (start, _) = window.find(addr.0, write).ok_or(invalid_address(addr))?;
        Ok(Walk::Mapped { start, len })
    }

    /// Makes a range accessible, as far as that is done in one go.
    #[inline(never)]
    fn walk(
        &self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> GuestMemoryResult<Walk> {
        if count == 0 {
            return Ok(Walk::Done);
        }
        match Place::of(addr, count)? {
            Place::Ram { start, end } if self.handle.domain.has_ram(start, end) => {
                Ok(Walk::Ram { at: start, end })
            }
            Place::Ram { .. } => Err(invalid_address(addr)),
            Place::Grants { first, offset, pages } => {
                let range = GrantRange { first, offset, len: count, pages };
                self.grant(addr, range, access)
            }
        }
    }

    /// The bytes of one page that is mapped by itself.
    fn granted(
        &self,
        addr: GuestAddress,
        page: GrantRange,
        write: bool,
    ) -> GuestMemoryResult<VolatileSlice<'_>> {
        let start = lock(&self.pins).mapped(page, write).ok_or(invalid_address(addr))?;
        Ok(self.slice(start, page.len))
    }
}

/// vm-memory's error has the text of the one in it, but not its source.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", .0, .0.source)]
struct Failed(MapError);

fn failed(error: MapError) -> GuestMemoryError {
    GuestMemoryError::IOError(io::Error::new(error.source.kind(), Failed(error)))
}

impl From<MapError> for GuestMemoryError {
    fn from(error: MapError) -> Self {
        failed(error)
    }
}

impl<F: ForeignMemory, G: GrantTable> GuestMemory for PinnedMemory<F, G> {
    type PhysicalMemory = NoPhysicalMemory;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, _access: Permissions) -> bool {
        match Place::of(addr, count.max(1)) {
            Ok(Place::Ram { start, end }) => self.handle.domain.has_ram(start, end),
            Ok(Place::Grants { .. }) => self.handle.domain.grants.is_some(),
            Err(_) => false,
        }
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> GuestMemoryResult<impl GuestMemorySliceIterator<'a, ()>> {
        let walk = match self.windows.find(addr.0, count, access.has_write()) {
            Some(start) if count > 0 => Walk::Mapped { start, len: count },
            _ => self.walk(addr, count, access)?,
        };
        Ok(Walking { memory: self, addr, walk })
    }
}

/// A range's slices.
struct Walking<'a, F: ForeignMemory, G: GrantTable> {
    memory: &'a PinnedMemory<F, G>,
    addr: GuestAddress,
    walk: Walk,
}

impl<'a, F: ForeignMemory, G: GrantTable> Iterator for Walking<'a, F, G> {
    type Item = GuestMemoryResult<VolatileSlice<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.walk {
            Walk::Done => None,
            Walk::Mapped { start, len } => {
                self.walk = Walk::Done;
                Some(Ok(self.memory.slice(start, len)))
            }
            _ => self.walk.step(self.memory, self.addr),
        }
    }
}

impl<F: ForeignMemory, G: GrantTable> FusedIterator for Walking<'_, F, G> {}

impl<'a, F: ForeignMemory, G: GrantTable> GuestMemorySliceIterator<'a, ()> for Walking<'a, F, G> {}

/// Where an iteration over a range's slices is.
#[derive(Clone, Copy)]
enum Walk {
    Ram { at: u64, end: u64 },
    Mapped { start: *mut u8, len: usize },
    Granted { range: GrantRange, page: usize, write: bool },
    Done,
}

impl Walk {
    #[inline(never)]
    fn step<'a, F: ForeignMemory, G: GrantTable>(
        &mut self,
        memory: &'a PinnedMemory<F, G>,
        addr: GuestAddress,
    ) -> Option<GuestMemoryResult<VolatileSlice<'a>>> {
        let (slice, rest) = match *self {
            Self::Done => return None,
            Self::Mapped { start, len } => (Ok(memory.slice(start, len)), Self::Done),
            Self::Ram { at, end } => {
                let slice = memory.ram(at, end);
                let next = slice.as_ref().map_or(end, |slice| at + slice.len() as u64);
                (slice, if next < end { Self::Ram { at: next, end } } else { Self::Done })
            }
            Self::Granted { range, page, write } => {
                let next = Self::Granted { range, page: page + 1, write };
                let rest = if page + 1 < range.pages { next } else { Self::Done };
                (memory.granted(addr, range.page(page), write), rest)
            }
        };
        *self = if slice.is_ok() { rest } else { Self::Done };
        Some(slice)
    }
}

impl<F: ForeignMemory, G: GrantTable> Drop for PinnedMemory<F, G> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<F: ForeignMemory, G: GrantTable> fmt::Debug for PinnedMemory<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedMemory").field("pins", &self.pins).finish_non_exhaustive()
    }
}
