//! Access to one part of a ring.

use std::sync::atomic::Ordering;

use vm_memory::bitmap::BS;
use vm_memory::{
    AtomicAccess, ByteValued, Bytes, GuestAddress, GuestMemory, Permissions, VolatileMemory,
    VolatileSlice,
};

use crate::QueueError;

/// A ring access that failed although it was checked when the queue was made.
#[derive(Debug)]
pub(super) struct Lost;

/// One of the three parts of a ring, in guest addresses, checked for overflow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    /// Its name, for errors.
    pub(super) part: &'static str,
    pub(super) addr: u64,
    pub(super) len: usize,
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

    /// Looks the whole part up once, for as many accesses as follow.
    pub(super) fn view<'a, M: GuestMemory>(&self, mem: &'a M) -> Result<View<'a, M>, Lost> {
        let slice = mem
            .get_slices(GuestAddress(self.addr), self.len, self.access)
            .ok()
            .and_then(|mut slices| slices.next())
            .and_then(Result::ok)
            .ok_or(Lost)?;
        Ok(View { area: *self, mem, slice })
    }
}

/// A part of a ring as a slice of our memory. Where it is not contiguous there, accesses beyond
/// the first piece are looked up one by one.
pub(super) struct View<'a, M: GuestMemory> {
    area: Area,
    mem: &'a M,
    slice: VolatileSlice<'a, BS<'a, M::Bitmap>>,
}

impl<M: GuestMemory> View<'_, M> {
    #[inline]
    pub(super) fn load<T: AtomicAccess>(&self, offset: usize, order: Ordering) -> Result<T, Lost> {
        #[cfg(loom)]
        if let Some(value) = crate::sync::cells::load(self.area.addr + offset as u64, order) {
            let mut it = T::zeroed();
            it.as_mut_slice().copy_from_slice(&value.to_le_bytes()[..size_of::<T>()]);
            return Ok(it);
        }
        if let Ok(value) = self.slice.load(offset, order) {
            return Ok(value);
        }
        self.beyond::<T>(offset)?.load(0, order).map_err(|_| Lost)
    }

    /// Copies a value out that is not for synchronisation.
    #[inline]
    pub(super) fn copy<T: ByteValued>(&self, offset: usize) -> Result<T, Lost> {
        if let Ok(place) = self.slice.get_ref::<T>(offset) {
            return Ok(place.load());
        }
        self.beyond::<T>(offset)?.read_obj(0).map_err(|_| Lost)
    }

    #[inline]
    pub(super) fn store<T: AtomicAccess>(
        &self,
        value: T,
        offset: usize,
        order: Ordering,
    ) -> Result<(), Lost> {
        #[cfg(loom)]
        {
            let mut bytes = [0; 8];
            bytes[..size_of::<T>()].copy_from_slice(value.as_slice());
            let (addr, value) = (self.area.addr + offset as u64, u64::from_le_bytes(bytes));
            if crate::sync::cells::store(addr, value, order) {
                return Ok(());
            }
        }
        if self.slice.store(value, offset, order).is_ok() {
            return Ok(());
        }
        self.beyond::<T>(offset)?.store(value, 0, order).map_err(|_| Lost)
    }

    #[cold]
    fn beyond<T>(&self, offset: usize) -> Result<VolatileSlice<'_, BS<'_, M::Bitmap>>, Lost> {
        let addr = u64::try_from(offset)
            .ok()
            .and_then(|offset| self.area.addr.checked_add(offset))
            .ok_or(Lost)?;
        self.mem
            .get_slices(GuestAddress(addr), size_of::<T>(), self.area.access)
            .ok()
            .and_then(|mut slices| slices.next())
            .and_then(Result::ok)
            .ok_or(Lost)
    }
}
