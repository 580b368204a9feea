//! One request: the buffers of a descriptor chain and the guard on its memory.

use std::fmt;

use vm_memory::bitmap::BS;
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryError, Permissions,
    VolatileSlice,
};

/// One buffer of a chain, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its address in guest memory, unchecked.
    pub addr: GuestAddress,
    /// Its length in bytes.
    pub len: u32,
}

/// A descriptor chain the driver made available, to be given back with
/// [`LiveQueue::complete`](crate::LiveQueue::complete).
///
/// It holds a guard on the guest's memory, taken when it was popped. Giving it back drops the guard
/// first, and only then lets the driver have its buffers. A chain dropped instead is a request the
/// driver never gets an answer to, until it resets the device.
///
/// How the bytes are split into buffers means nothing (virtio 1.2 §2.7.4): read and write the two
/// streams, not single buffers.
#[must_use = "a popped chain must be completed"]
pub struct Chain<D: GuestAddressSpace> {
    pub(super) head: u16,
    pub(super) guard: D::T,
    pub(super) buffers: Vec<Buffer>,
    /// How many of the buffers, from the start, are for the device to read.
    pub(super) readable: usize,
    pub(super) readable_len: u32,
    pub(super) writable_len: u32,
}

impl<D: GuestAddressSpace> Chain<D> {
    /// The index of its first descriptor, which names it as long as it is in flight.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// The guard that keeps this request's memory.
    pub fn memory(&self) -> &D::T {
        &self.guard
    }

    /// The buffers the device reads.
    pub fn readable(&self) -> &[Buffer] {
        self.buffers.get(..self.readable).unwrap_or_default()
    }

    /// The buffers the device writes.
    pub fn writable(&self) -> &[Buffer] {
        self.buffers.get(self.readable..).unwrap_or_default()
    }

    /// Bytes the device may read, less than 2³².
    pub fn readable_len(&self) -> u64 {
        self.readable_len.into()
    }

    /// Bytes the device may write, less than 2³².
    pub fn writable_len(&self) -> u64 {
        self.writable_len.into()
    }

    /// Copies from the readable stream at `offset` into `data`; gives the number of bytes, fewer
    /// than asked for only where the stream ends.
    ///
    /// # Errors
    /// A buffer that is not the driver's memory.
    #[inline]
    pub fn copy_from(&self, offset: u64, data: &mut [u8]) -> Result<usize, GuestMemoryError> {
        // As most are: a header, at the start of a buffer that lies in one piece.
        if offset == 0
            && let Some(slice) = self.start(self.readable(), data.len(), Permissions::Read)
        {
            return Ok(slice.copy_to(data));
        }
        self.copy_parts_from(offset, data)
    }

    #[inline(never)]
    fn copy_parts_from(&self, offset: u64, data: &mut [u8]) -> Result<usize, GuestMemoryError> {
        let mut done = 0;
        for part in parts(self.readable(), offset, data.len()) {
            let (addr, at) = part?;
            let Some(piece) = data.get_mut(at.clone()) else {
                break;
            };
            self.guard.read_slice(piece, addr)?;
            done = at.end;
        }
        Ok(done)
    }

    /// Copies `data` into the writable stream at `offset`; gives the number of bytes, fewer than
    /// asked for only where the stream ends.
    ///
    /// # Errors
    /// A buffer that is not the driver's memory.
    #[inline]
    pub fn copy_to(&self, offset: u64, data: &[u8]) -> Result<usize, GuestMemoryError> {
        if offset == 0
            && let Some(slice) = self.start(self.writable(), data.len(), Permissions::Write)
        {
            slice.copy_from(data);
            return Ok(data.len());
        }
        let mut done = 0;
        for part in parts(self.writable(), offset, data.len()) {
            let (addr, at) = part?;
            let Some(piece) = data.get(at.clone()) else {
                break;
            };
            self.guard.write_slice(piece, addr)?;
            done = at.end;
        }
        Ok(done)
    }

    /// The first `len` bytes of `buffers`, if one buffer and one piece of our memory has them.
    #[inline]
    fn start(
        &self,
        buffers: &[Buffer],
        len: usize,
        access: Permissions,
    ) -> Option<VolatileSlice<'_, BS<'_, <D::M as GuestMemory>::Bitmap>>> {
        let buffer = buffers.first().filter(|buffer| u64::from(buffer.len) >= len as u64)?;
        let slice = self.guard.get_slices(buffer.addr, len, access).ok()?.next()?.ok()?;
        (slice.len() == len).then_some(slice)
    }
}

impl<D: GuestAddressSpace> fmt::Debug for Chain<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("head", &self.head)
            .field("readable", &self.readable())
            .field("writable", &self.writable())
            .finish_non_exhaustive()
    }
}

type Part = Result<(GuestAddress, std::ops::Range<usize>), GuestMemoryError>;

/// The pieces of the stream `buffers` from `skip` on, `len` bytes at most: where each is in guest
/// memory, and its range in the caller's data.
fn parts(buffers: &[Buffer], mut skip: u64, len: usize) -> impl Iterator<Item = Part> {
    let mut done = 0_usize;
    buffers.iter().filter_map(move |buffer| {
        let size = u64::from(buffer.len);
        let Some(left) = size.checked_sub(skip).filter(|&left| left != 0) else {
            skip = skip.saturating_sub(size);
            return None;
        };
        let start = buffer.addr.0.checked_add(skip);
        skip = 0;
        let wanted = len.saturating_sub(done);
        let count = usize::try_from(left).map_or(wanted, |left| left.min(wanted));
        if count == 0 {
            return None;
        }
        let at = done..done.saturating_add(count);
        done = at.end;
        Some(match start {
            Some(start) => Ok((GuestAddress(start), at)),
            None => Err(GuestMemoryError::InvalidGuestAddress(buffer.addr)),
        })
    })
}
