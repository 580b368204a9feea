//! Access to one part of a ring.

use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use vm_memory::bitmap::BS;
use vm_memory::{
    AtomicAccess, ByteValued, Bytes, GuestAddress, GuestMemory, Permissions, VolatileMemory,
    VolatileSlice,
};

use crate::QueueError;

/// A ring access that failed although it was checked when the queue was made.
#[derive(Debug)]
pub(super) struct RingInaccessible;

/// An entry of a part of a ring, which has `queue_size` of them.
pub(super) trait Entry: ByteValued {
    /// Offset of the first one.
    const FIRST: usize;
}

/// One of the three parts of a ring, in guest addresses, checked for overflow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    /// Its name, for errors.
    pub(super) part: &'static str,
    pub(super) addr: u64,
    pub(super) len: usize,
    /// How many entries it has.
    pub(super) count: u16,
    pub(super) access: Permissions,
}

impl Area {
    pub(super) fn is_accessible(&self, mem: &impl GuestMemory) -> bool {
        mem.check_range(GuestAddress(self.addr), self.len, self.access)
    }

    /// The error that it is not, for queue `index`.
    pub(super) fn inaccessible(&self, index: u16) -> QueueError {
        QueueError::Inaccessible { index, part: self.part, addr: self.addr, len: self.len }
    }

    /// Looks the whole part up, once for all accesses that follow. Its entries are `T`s.
    pub(super) fn view<'a, M: GuestMemory, T: Entry>(
        &self,
        mem: &'a M,
    ) -> Result<View<'a, M, T>, RingInaccessible> {
        let slice = mem
            .get_slices(GuestAddress(self.addr), self.len, self.access)
            .ok()
            .and_then(|mut slices| slices.next())
            .and_then(Result::ok)
            .ok_or(RingInaccessible)?;
        Ok(View { area: *self, mem, slice, entry: PhantomData })
    }
}

/// A part of a ring as a slice of our memory. Where it is not contiguous there, accesses beyond
/// the first piece are looked up one by one.
pub(super) struct View<'a, M: GuestMemory, T: Entry> {
    area: Area,
    mem: &'a M,
    slice: VolatileSlice<'a, BS<'a, M::Bitmap>>,
    entry: PhantomData<T>,
}

impl<M: GuestMemory, T: Entry> View<'_, M, T> {
    /// Copies an entry out; it is not for synchronisation.
    #[inline]
    pub(super) fn entry(&self, index: u16) -> Result<T, RingInaccessible> {
        let offset = self.offset(index);
        if let Ok(entry) = self.slice.get_ref::<T>(offset) {
            return Ok(entry.load());
        }
        self.entry_beyond(offset)
    }

    /// Sets an entry, which the driver reads only after the index that is stored next.
    #[inline]
    pub(super) fn set_entry(&self, index: u16, value: T) -> Result<(), RingInaccessible> {
        let offset = self.offset(index);
        if let Ok(entry) = self.slice.get_ref::<T>(offset) {
            entry.store(value);
            return Ok(());
        }
        self.set_entry_beyond(offset, value)
    }

    #[cold]
    #[inline(never)]
    fn entry_beyond(&self, offset: usize) -> Result<T, RingInaccessible> {
        // It may lie in two pieces.
        self.mem.read_obj(self.addr(offset)?).map_err(|_| RingInaccessible)
    }

    #[cold]
    #[inline(never)]
    fn set_entry_beyond(&self, offset: usize, value: T) -> Result<(), RingInaccessible> {
        self.mem.write_obj(value, self.addr(offset)?).map_err(|_| RingInaccessible)
    }

    #[inline]
    fn offset(&self, index: u16) -> usize {
        usize::from(index).wrapping_mul(size_of::<T>()).wrapping_add(T::FIRST)
    }

    #[inline]
    pub(super) fn load<A: AtomicAccess>(
        &self,
        offset: usize,
        order: Ordering,
    ) -> Result<A, RingInaccessible> {
        #[cfg(loom)]
        if let Some(value) = crate::sync::cells::load(self.area.addr + offset as u64, order) {
            let mut it = A::zeroed();
            it.as_mut_slice().copy_from_slice(&value.to_le_bytes()[..size_of::<A>()]);
            return Ok(it);
        }
        if let Ok(value) = self.slice.load(offset, order) {
            return Ok(value);
        }
        self.load_beyond(offset, order)
    }

    #[inline]
    pub(super) fn store<A: AtomicAccess>(
        &self,
        value: A,
        offset: usize,
        order: Ordering,
    ) -> Result<(), RingInaccessible> {
        #[cfg(loom)]
        {
            let mut bytes = [0; 8];
            bytes[..size_of::<A>()].copy_from_slice(value.as_slice());
            let (addr, value) = (self.area.addr + offset as u64, u64::from_le_bytes(bytes));
            if crate::sync::cells::store(addr, value, order) {
                return Ok(());
            }
        }
        if self.slice.store(value, offset, order).is_ok() {
            return Ok(());
        }
        self.store_beyond(value, offset, order)
    }

    #[cold]
    #[inline(never)]
    fn load_beyond<A: AtomicAccess>(
        &self,
        offset: usize,
        order: Ordering,
    ) -> Result<A, RingInaccessible> {
        self.beyond(offset, size_of::<A>())?.load(0, order).map_err(|_| RingInaccessible)
    }

    #[cold]
    #[inline(never)]
    fn store_beyond<A: AtomicAccess>(
        &self,
        value: A,
        offset: usize,
        order: Ordering,
    ) -> Result<(), RingInaccessible> {
        self.beyond(offset, size_of::<A>())?.store(value, 0, order).map_err(|_| RingInaccessible)
    }

    /// Offset of the other side's event index, behind the last entry.
    #[inline]
    pub(super) fn event(&self) -> usize {
        self.offset(self.area.count)
    }

    fn beyond(
        &self,
        offset: usize,
        len: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, M::Bitmap>>, RingInaccessible> {
        self.mem
            .get_slices(self.addr(offset)?, len, self.area.access)
            .ok()
            .and_then(|mut slices| slices.next())
            .and_then(Result::ok)
            .ok_or(RingInaccessible)
    }

    fn addr(&self, offset: usize) -> Result<GuestAddress, RingInaccessible> {
        let addr = u64::try_from(offset).ok().and_then(|offset| self.area.addr.checked_add(offset));
        addr.map(GuestAddress).ok_or(RingInaccessible)
    }
}
