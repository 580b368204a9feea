//! A guest's memory as one request, or one queue's rings, sees it.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryResult, Permissions, VolatileSlice,
};

use crate::address::Place;
use crate::error::MapError;
use crate::foreign::ForeignMemory;
use crate::grant::GrantTable;
use crate::guard::Handle;
use crate::lock;
use crate::mapping::Prot;
use crate::physical::{NoPhysicalMemory, Slices, invalid_address};
use crate::pins::{GrantRange, Pins};

/// The guest's memory behind a [`Guard`](crate::Guard): a [`GuestMemory`].
///
/// What was once handed out stays where it is until the guard's last clone is dropped.
///
/// * An address without bit 63 is RAM. A range must lie in one bank and may span chunks.
/// * An address with bit 63 is `1 << 63 | grant reference << 12 | offset`; a range over several
///   pages uses consecutive references. Without [`Permissions::Write`] it is mapped read-only.
///
/// Ranges of one guard that overlap see each other's bytes. The exception is granted memory that is
/// first accessed by a small range, so copied, and then by a larger one, so mapped: slices of the
/// small one must not be written any more.
///
/// [`check_range`](GuestMemory::check_range) says whether a range makes sense. Whether the guest has
/// that memory is found out by [`get_slices`](GuestMemory::get_slices).
pub struct PinnedMemory<F: ForeignMemory, G: GrantTable> {
    /// None while it waits for the next guard.
    handle: Option<Arc<Handle<F, G>>>,
    pins: Mutex<Pins>,
}

impl<F: ForeignMemory, G: GrantTable> PinnedMemory<F, G> {
    pub(crate) fn new() -> Self {
        Self { handle: None, pins: Mutex::default() }
    }

    pub(crate) fn begin(&mut self, handle: Arc<Handle<F, G>>) {
        self.handle = Some(handle);
    }

    /// Gives everything back. Whose it was, if it was in use.
    pub(crate) fn end(&mut self) -> Option<Arc<Handle<F, G>>> {
        let handle = self.handle.take()?;
        let mut pins = lock(&self.pins);
        if let (Some(grants), Some(pool), true) =
            (&handle.domain.grants, &handle.pool, pins.has_bounced())
        {
            pins.copy_out(&**grants, pool, 0..=u32::MAX, &handle.domain.counters);
        }
        pins.release(handle.pool.as_ref());
        drop(pins);
        Some(handle)
    }

    fn handle(&self, addr: GuestAddress) -> GuestMemoryResult<&Handle<F, G>> {
        self.handle.as_deref().ok_or(invalid_address(addr))
    }

    /// Memory that the pins keep in place.
    fn slice<'a>(&'a self, start: *mut u8, len: usize) -> VolatileSlice<'a> {
        // SAFETY: the callers found `len` bytes at `start` in what the pins hold, which stays
        // mapped until `end`; that takes `&mut self`, so the borrow of the slice is over then. It
        // is only ever accessed as volatile.
        unsafe { VolatileSlice::new(start, len) }
    }

    /// The RAM from `addr` on, at most up to `end`, at least one byte.
    fn ram(&self, addr: u64, end: u64) -> GuestMemoryResult<VolatileSlice<'_>> {
        let invalid = || invalid_address(GuestAddress(addr));
        let mut pins = lock(&self.pins);
        let (start, len) = match pins.ram(addr) {
            Some(found) => found,
            None => {
                let chunk = self.handle(GuestAddress(addr))?.chunk(addr)?;
                let found = chunk.find(addr).ok_or_else(invalid)?;
                pins.hold(chunk);
                found
            }
        };
        let wanted = usize::try_from(end - addr).unwrap_or(usize::MAX);
        Ok(self.slice(start, len.min(wanted)))
    }

    /// Makes a granted range accessible: mapped, then it starts there, or else copied.
    fn grant(
        &self,
        addr: GuestAddress,
        range: GrantRange,
        access: Permissions,
    ) -> GuestMemoryResult<Option<*mut u8>> {
        let handle = self.handle(addr)?;
        let domain = &*handle.domain;
        let table = &**domain.grants.as_ref().ok_or(invalid_address(addr))?;
        let write = access.has_write();
        let prot = if write { Prot::READ | Prot::WRITE } else { Prot::READ };
        let mut pins = lock(&self.pins);
        if let Some(start) = pins.mapped(range, prot) {
            return Ok(Some(start));
        }
        if let Some(pool) = &handle.pool {
            let access = (access.allow(Permissions::Read), write);
            if range.len <= domain.layout.copy_max_bytes()
                && pins.bounce(table, pool, range, access, &domain.counters).map_err(failed)?
            {
                return Ok(None);
            }
            if pins.has_bounced() {
                pins.copy_out(table, pool, range.grefs(), &domain.counters);
            }
        }
        let max = domain.layout.max_grants();
        if handle.is_for_rings() {
            // What is read first is often written next; a page granted read-only can't be.
            let both = Prot::READ | Prot::WRITE;
            if let Ok(start) = pins.map(table, range, both, max, &domain.counters) {
                return Ok(Some(start));
            }
        }
        pins.map(table, range, prot, max, &domain.counters).map(Some).map_err(failed)
    }

    /// The bytes of one page that is copied.
    fn bounced(
        &self,
        addr: GuestAddress,
        gref: u32,
        bytes: std::ops::Range<usize>,
    ) -> GuestMemoryResult<VolatileSlice<'_>> {
        let pool = self.handle(addr)?.pool.as_ref().ok_or(invalid_address(addr))?;
        let pins = lock(&self.pins);
        let page = pins.bounced(gref).ok_or(invalid_address(addr))?;
        Ok(pool.slice(page, bytes))
    }
}

fn failed(error: MapError) -> GuestMemoryError {
    GuestMemoryError::IOError(io::Error::new(error.source.kind(), error))
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
        let Some(handle) = &self.handle else { return false };
        match Place::of(addr, count.max(1)) {
            Ok(Place::Ram { start, end }) => handle.domain.has_ram(start, end),
            Ok(Place::Grants { .. }) => handle.domain.grants.is_some(),
            Err(_) => false,
        }
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> GuestMemoryResult<impl GuestMemorySliceIterator<'a, ()>> {
        let mut walk = match count {
            0 => Walk::Done,
            _ => match Place::of(addr, count)? {
                Place::Ram { start, end } => {
                    if !self.handle(addr)?.domain.has_ram(start, end) {
                        return Err(invalid_address(addr));
                    }
                    Walk::Ram { at: start, end }
                }
                Place::Grants { first, offset, pages } => {
                    let range = GrantRange { first, offset, len: count, pages };
                    match self.grant(addr, range, access)? {
                        Some(start) => Walk::Mapped { start, len: count },
                        None => Walk::Copied { range, page: 0 },
                    }
                }
            },
        };
        Ok(Slices(std::iter::from_fn(move || walk.next(self, addr)).fuse()))
    }
}

/// Where an iteration over a range's slices is.
enum Walk {
    Ram { at: u64, end: u64 },
    Mapped { start: *mut u8, len: usize },
    Copied { range: GrantRange, page: usize },
    Done,
}

impl Walk {
    fn next<'a, F: ForeignMemory, G: GrantTable>(
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
            Self::Copied { range, page } => {
                let (gref, bytes) = range.part(page);
                let more = page + 1 < range.pages;
                let rest = if more { Self::Copied { range, page: page + 1 } } else { Self::Done };
                (memory.bounced(addr, gref, bytes), rest)
            }
        };
        *self = if slice.is_ok() { rest } else { Self::Done };
        Some(slice)
    }
}

impl<F: ForeignMemory, G: GrantTable> Drop for PinnedMemory<F, G> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<F: ForeignMemory, G: GrantTable> fmt::Debug for PinnedMemory<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedMemory").field("pins", &self.pins).finish_non_exhaustive()
    }
}
