use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use super::ring::Ring;
use crate::engine::{Data, Io};

/// Bytes of one buffer, and so of one transfer through it: a longer operation takes several.
pub(super) const BUFFER_SIZE: usize = 128 << 10;

/// 512 MiB of them.
const COUNT_MAX: usize = 4096;

/// What direct I/O demands of memory at most: a page.
const PAGE: usize = 4096;

/// A bounce buffer, by its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Buffer(u16);

/// Which way the data of a [`Transfer`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the image into the buffer.
    In,
    /// From the buffer into the image.
    Out,
}

/// A transfer between the image and a buffer, in whole blocks. Only [`Bounce::begin`] makes one, of
/// the [`Data`] that reads and writes alone have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) direction: Direction,
    pub(super) memory: NonNull<u8>,
    pub(super) offset: u64,
    pub(super) len: u32,
    /// The memory is the ring's registered buffer 0.
    pub(super) registered: bool,
}

/// Buffers that direct I/O takes, for guest memory that it doesn't: not aligned, or, as other
/// domains' pages are, nothing that the kernel can pin.
///
/// All of them are allocated at once, and are all there ever are.
#[derive(Debug)]
pub(super) struct Bounce {
    memory: NonNull<u8>,
    layout: Layout,
    free: Vec<u16>,
    /// Offsets and lengths in the image are multiples of it.
    block: u64,
    /// Guest memory can't be pinned.
    always: bool,
    registered: bool,
}

// SAFETY: the memory is owned by this value, and no thread's.
unsafe impl Send for Bounce {}

impl Bounce {
    /// Buffers of `size` bytes altogether, at least one and at most 512 MiB; `into_guest` unless guest memory is known
    /// not to be pinned.
    pub(super) fn new(size: usize, block: u64, into_guest: bool, ring: &mut Ring) -> Self {
        let count = (size / BUFFER_SIZE).clamp(1, COUNT_MAX) as u16;
        let size = usize::from(count).wrapping_mul(BUFFER_SIZE);
        // SAFETY: a power of two, and at most COUNT_MAX buffers, which is less than isize::MAX.
        let layout = unsafe { Layout::from_size_align_unchecked(size, PAGE) };
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        // SAFETY: the memory is freed by `free`, which the engine calls when its ring has nothing
        // in hand.
        let registered = unsafe { ring.register_buffer(memory, size) };
        Self {
            memory,
            layout,
            free: (0..count).rev().collect(),
            block: block.max(1),
            always: !into_guest,
            registered,
        }
    }

    /// The kernel refused guest memory: it isn't asked again.
    pub(super) fn unpinnable(&mut self) {
        self.always = true;
    }

    /// `data`, the rest of `io`'s, can't be transferred without a buffer.
    pub(super) fn is_needed(&self, io: &Io, data: Data<'_>) -> bool {
        self.always
            || !io.offset().is_multiple_of(self.block)
            || data.iovecs().iter().any(|iovec| {
                let at = iovec.iov_base.addr() as u64;
                !(at | iovec.iov_len as u64).is_multiple_of(self.block)
            })
    }

    /// Only whole blocks can be written: what is beside a part of one may be another queue's.
    pub(super) fn is_possible(&self, io: &Io, data: Data<'_>) -> bool {
        match data {
            Data::Out(_) => (io.offset() | io.remaining()).is_multiple_of(self.block),
            Data::In(_) => true,
        }
    }

    /// A buffer; `None` if all are in use.
    pub(super) fn take(&mut self) -> Option<Buffer> {
        self.free.pop().map(Buffer)
    }

    pub(super) fn put(&mut self, buffer: Buffer) {
        self.free.push(buffer.0);
    }

    /// The transfer that is next for `io`: a write's data is in the buffer then. `None` if not all of
    /// that data could be copied, so that what the buffer held before is never stored.
    pub(super) fn begin(&mut self, io: &Io, data: Data<'_>, buffer: &Buffer) -> Option<Transfer> {
        let head = self.head(io);
        let end = io.remaining().saturating_add(head).min(BUFFER_SIZE as u64);
        let len = end.next_multiple_of(self.block).min(BUFFER_SIZE as u64);
        let direction = match data {
            Data::In(_) => Direction::In,
            Data::Out(source) => {
                let room = self.bytes(buffer, 0, len as usize);
                if source.copy_to(room) as u64 != len {
                    return None;
                }
                Direction::Out
            }
        };
        Some(Transfer {
            direction,
            memory: self.start(buffer),
            offset: io.offset().saturating_sub(head),
            len: len as u32,
            registered: self.registered,
        })
    }

    /// Of `n` bytes transferred, those that were `io`'s; a read's data is in its place then.
    pub(super) fn end(&mut self, io: &Io, data: Data<'_>, buffer: &Buffer, n: u64) -> u64 {
        let head = self.head(io);
        let n = n.min(BUFFER_SIZE as u64).saturating_sub(head).min(io.remaining());
        match data {
            Data::In(sink) => sink.copy_from(self.bytes(buffer, head as usize, n as usize)) as u64,
            Data::Out(_) => n,
        }
    }

    /// Bytes of the first block that come before what is left of `io`.
    fn head(&self, io: &Io) -> u64 {
        io.offset().checked_rem(self.block).unwrap_or(0)
    }

    fn start(&self, buffer: &Buffer) -> NonNull<u8> {
        // SAFETY: there are as many buffers as have room in the memory.
        unsafe { self.memory.add(usize::from(buffer.0).wrapping_mul(BUFFER_SIZE)) }
    }

    /// `len` bytes of a buffer that the kernel hasn't in hand.
    fn bytes(&mut self, buffer: &Buffer, at: usize, len: usize) -> &mut [u8] {
        let start = self.start(buffer).as_ptr();
        // SAFETY: a buffer, initialised and within the memory, of which there is but one value of
        // `Buffer`; it was taken and not yet given to the kernel, or given back by it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, BUFFER_SIZE) };
        bytes.get_mut(at..at.saturating_add(len)).unwrap_or_default()
    }

    /// Frees the memory.
    ///
    /// # Safety
    /// The kernel has none of the buffers in hand.
    pub(super) unsafe fn free(self) {
        // SAFETY: it was allocated so, and nobody uses it any more, by the caller's promise.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// The file goes around the page cache.
pub(super) fn is_direct(file: BorrowedFd<'_>) -> bool {
    // SAFETY: the descriptor is open; the command takes no argument.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    flags != -1 && flags & libc::O_DIRECT != 0
}
