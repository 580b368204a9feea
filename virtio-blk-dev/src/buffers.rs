//! Guest memory as lists of host addresses for system calls. Only here do these become pointers.

use std::marker::PhantomData;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions, VolatileSlice};

/// A range is not guest memory, or can't be accessed as requested.
#[derive(Debug)]
pub(crate) struct BadAddress;

/// The host addresses of a request's data, in the order of its chain.
///
/// Holding them needs no guarantee. Access through them is sound only while the memory stays mapped, which
/// is the safety condition of [`Segments::sink`] and [`Segments::source`].
#[derive(Debug, Default)]
pub(crate) struct Segments {
    iovecs: Vec<libc::iovec>,
    /// The first segment that isn't transferred completely.
    first: usize,
    /// Bytes that are left.
    remaining: usize,
}

// SAFETY: the pointers name guest memory, which has no owning thread; whoever dereferences them
// relies on the memory being mapped, never on the thread.
unsafe impl Send for Segments {}

impl Segments {
    /// Removes the segments, and keeps the allocation.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.iovecs.clear();
        self.first = 0;
        self.remaining = 0;
    }

    /// Appends the `len` bytes of guest memory at `addr`.
    pub(crate) fn gather<M: GuestMemory>(
        &mut self,
        memory: &M,
        addr: GuestAddress,
        len: usize,
        access: Permissions,
    ) -> Result<(), BadAddress> {
        let mut found = 0usize;
        for slice in memory.get_slices(addr, len, access).map_err(|_| BadAddress)? {
            let slice = slice.map_err(|_| BadAddress)?;
            found = found.checked_add(slice.len()).ok_or(BadAddress)?;
            self.push(&slice);
        }
        if found != len {
            return Err(BadAddress);
        }
        self.remaining = self.remaining.checked_add(len).ok_or(BadAddress)?;
        Ok(())
    }

    /// Appends memory that has been looked up already.
    #[inline]
    pub(crate) fn add<B: BitmapSlice>(&mut self, slice: &VolatileSlice<'_, B>) {
        self.push(slice);
        // Can't overflow: the ring walk limits a request to less than 4 GiB.
        self.remaining = self.remaining.saturating_add(slice.len());
    }

    #[inline]
    fn push<B: BitmapSlice>(&mut self, slice: &VolatileSlice<'_, B>) {
        if !slice.is_empty() {
            let base = slice.ptr_guard_mut().as_ptr().cast();
            self.iovecs.push(libc::iovec { iov_base: base, iov_len: slice.len() });
        }
    }

    /// Bytes left.
    #[cfg(test)]
    fn remaining(&self) -> usize {
        self.remaining
    }

    /// Removes the first `n` bytes, or all if there are fewer.
    pub(crate) fn advance(&mut self, n: usize) {
        let mut n = n.min(self.remaining);
        self.remaining = self.remaining.saturating_sub(n);
        while let Some(iovec) = self.iovecs.get_mut(self.first) {
            if n < iovec.iov_len {
                iovec.iov_base = iovec.iov_base.wrapping_byte_add(n);
                iovec.iov_len = iovec.iov_len.saturating_sub(n);
                return;
            }
            n = n.saturating_sub(iovec.iov_len);
            self.first = self.first.saturating_add(1);
        }
    }

    fn rest(&self) -> &[libc::iovec] {
        self.iovecs.get(self.first..).unwrap_or_default()
    }

    /// The memory, to be filled.
    ///
    /// # Safety
    /// As long as the [`Sink`] lives, everything gathered must stay mapped, and it must have been
    /// gathered for writing.
    #[inline]
    pub(crate) unsafe fn sink(&self) -> Sink<'_> {
        Sink(Buffers::new(self.rest()))
    }

    /// The memory, to be read.
    ///
    /// # Safety
    /// As long as the [`Source`] lives, everything gathered must stay mapped.
    #[inline]
    pub(crate) unsafe fn source(&self) -> Source<'_> {
        Source(Buffers::new(self.rest()))
    }
}

/// Mapped guest memory. Made only by the unsafe methods of [`Segments`].
#[derive(Clone, Copy, Debug)]
struct Buffers<'a> {
    iovecs: &'a [libc::iovec],
    mapped: PhantomData<&'a Segments>,
}

impl<'a> Buffers<'a> {
    fn new(iovecs: &'a [libc::iovec]) -> Self {
        Self { iovecs, mapped: PhantomData }
    }

    fn slices(self) -> impl Iterator<Item = VolatileSlice<'a>> {
        self.iovecs.iter().map(|iovec| {
            // SAFETY: the caller of `sink` or `source` has promised that the bytes are mapped for `'a`.
            // All accesses of this crate to guest memory are volatile or made by the kernel.
            unsafe { VolatileSlice::new(iovec.iov_base.cast(), iovec.iov_len) }
        })
    }
}

/// Guest memory for the data of a read.
///
/// The guest may access it at any time: so there is no reference to it, only copies into it and the host
/// addresses for system calls.
#[derive(Clone, Copy, Debug)]
pub struct Sink<'a>(Buffers<'a>);

impl<'a> Sink<'a> {
    /// Host addresses and lengths for `preadv` and the like, writable while the `Sink` lives. No
    /// length is zero; there may be more than `IOV_MAX`.
    pub fn iovecs(self) -> &'a [libc::iovec] {
        self.0.iovecs
    }

    /// Copies `data` to the start of the memory, and returns how many bytes had room.
    pub fn copy_from(self, data: &[u8]) -> usize {
        let mut rest = data;
        for slice in self.0.slices() {
            let n = slice.write(rest, 0).unwrap_or(0);
            rest = rest.get(n..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
        }
        data.len().saturating_sub(rest.len())
    }
}

/// Guest memory with the data of a write. It may be mapped read-only.
///
/// The guest may change it at any time: data that is examined has to be copied first.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a>(Buffers<'a>);

impl<'a> Source<'a> {
    /// Host addresses and lengths for `pwritev` and the like, readable while the `Source` lives.
    /// No length is zero; there may be more than `IOV_MAX`.
    pub fn iovecs(self) -> &'a [libc::iovec] {
        self.0.iovecs
    }

    /// Copies the start of the memory to `data`, and returns the number of bytes copied.
    pub fn copy_to(self, data: &mut [u8]) -> usize {
        let mut done = 0usize;
        for slice in self.0.slices() {
            let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            done = done.saturating_add(slice.read(rest, 0).unwrap_or(0));
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::bitmap::BS;
    use vm_memory::guest_memory::GuestMemorySliceIterator;
    use vm_memory::{GuestMemoryError, GuestMemoryMmap};

    use super::*;

    /// Gives one byte less than asked for.
    struct Lossy(GuestMemoryMmap<()>);

    impl GuestMemory for Lossy {
        type PhysicalMemory = GuestMemoryMmap<()>;
        type Bitmap = ();

        fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
            GuestMemory::check_range(&self.0, addr, count, access)
        }

        fn get_slices<'a>(
            &'a self,
            addr: GuestAddress,
            count: usize,
            access: Permissions,
        ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, ()>>, GuestMemoryError> {
            GuestMemory::get_slices(&self.0, addr, count - 1, access)
        }
    }

    #[test]
    fn memory_that_gives_less_than_asked_for_is_refused() {
        let mut segments = Segments::default();
        let result = segments.gather(&Lossy(memory()), GuestAddress(0), 8, Permissions::Read);
        assert!(result.is_err());
    }

    fn memory() -> GuestMemoryMmap<()> {
        // Two banks without a gap between them.
        let banks = [(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)];
        GuestMemoryMmap::from_ranges(&banks).unwrap()
    }

    fn gathered(memory: &GuestMemoryMmap<()>, parts: &[(u64, usize)]) -> Segments {
        let mut segments = Segments::default();
        for &(addr, len) in parts {
            segments.gather(memory, GuestAddress(addr), len, Permissions::Write).unwrap();
        }
        segments
    }

    #[test]
    fn a_range_over_two_banks_is_two_segments() {
        let memory = memory();
        let segments = gathered(&memory, &[(0xffe, 4), (0x10, 1)]);
        let lens: Vec<usize> = segments.rest().iter().map(|iovec| iovec.iov_len).collect();
        assert_eq!((lens, segments.remaining()), (vec![2, 2, 1], 5));
    }

    #[test]
    fn what_is_not_memory_is_refused() {
        let memory = memory();
        for (addr, len) in [(0x1fff, 2), (0x2000, 1), (u64::MAX, 1), (u64::MAX, 2), (0, 0x2001)] {
            let mut segments = Segments::default();
            let result = segments.gather(&memory, GuestAddress(addr), len, Permissions::Read);
            assert!(result.is_err(), "{len} bytes at {addr:#x}");
            assert_eq!(segments.remaining(), 0);
        }
    }

    #[test]
    fn advancing_by_any_steps_visits_every_byte_once() {
        let memory = memory();
        let parts = [(0x100, 3), (0xffd, 5), (0x1800, 1), (0x20, 7)];
        let pattern: Vec<u8> = (1..=16).collect();
        for step in 1..=17 {
            let mut segments = gathered(&memory, &parts);
            let mut written = 0;
            while segments.remaining() > 0 {
                let end = pattern.len().min(written + step);
                // SAFETY: `memory` outlives it, and all of it can be written.
                let sink = unsafe { segments.sink() };
                assert_eq!(sink.copy_from(&pattern[written..end]), end - written);
                segments.advance(step);
                written = end;
            }
            assert_eq!(written, 16);
            assert!(segments.rest().is_empty());

            let segments = gathered(&memory, &parts);
            // SAFETY: as above.
            let source = unsafe { segments.source() };
            let mut read = [0; 20];
            assert_eq!(source.copy_to(&mut read), 16);
            assert_eq!(read[..16], pattern, "step {step}");
            assert_eq!(source.copy_to(&mut read[..5]), 5);
            // SAFETY: as above.
            assert_eq!(unsafe { segments.sink() }.copy_from(&[0; 20]), 16);
        }
    }

    #[test]
    fn advancing_past_the_end_is_the_end() {
        let memory = memory();
        let mut segments = gathered(&memory, &[(0, 4)]);
        segments.advance(usize::MAX);
        assert_eq!(segments.remaining(), 0);
        assert!(segments.rest().is_empty());
    }
}
