use std::ptr::NonNull;

use super::pool::{BUFFER_SIZE, BouncePool, Buffer};
use crate::engine::{Data, Io};
use crate::image::Alignment;

/// The direction of a [`Transfer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the image into the buffer.
    In,
    /// From the buffer into the image.
    Out,
}

/// A transfer between the image and a buffer, in whole blocks. Made only by [`BounceBuffers::begin`], from
/// the [`Data`] that only reads and writes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) direction: Direction,
    pub(super) memory: NonNull<u8>,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// A buffer can't be allocated.
#[derive(Debug)]
pub(super) struct NoMemory;

/// The bounce buffers of one engine: copies data for guest memory that direct I/O doesn't take, because it
/// isn't aligned or, as with other domains' pages, can't be pinned.
#[derive(Debug)]
pub(super) struct BounceBuffers {
    /// What the kernel demands of memory, offsets and lengths.
    alignment: Alignment,
    /// Guest memory can't be pinned: every transfer needs a buffer.
    always: bool,
    pool: BouncePool,
    /// Buffers taken from the pool that no operation uses.
    free: Vec<Buffer>,
    /// The number of buffers that operations use.
    used: usize,
}

impl BounceBuffers {
    /// `into_guest` is false if it is known that guest memory can't be pinned.
    pub(super) fn new(pool: BouncePool, alignment: Alignment, into_guest: bool) -> Self {
        Self { alignment, always: !into_guest, pool, free: Vec::new(), used: 0 }
    }

    /// The kernel couldn't pin guest memory: use buffers from now on.
    pub(super) fn unpinnable(&mut self) {
        self.always = true;
    }

    /// Whether `data`, which is left of `io`, has to be transferred through a buffer.
    pub(super) fn is_needed(&self, io: &Io, data: Data<'_>) -> bool {
        self.always || !self.alignment.is_met(data.iovecs(), io.offset())
    }

    /// Whether it can be: only whole blocks can be written, as another queue may write the rest of a block.
    pub(super) fn is_possible(&self, io: &Io, data: Data<'_>) -> bool {
        match data {
            Data::Out(_) => self.alignment.is_met_by(io.offset() | io.remaining()),
            Data::In(_) => true,
        }
    }

    /// A buffer; `None` if the pool is exhausted. Then operations of this engine use some, and their
    /// completion is the time to try again.
    pub(super) fn take(&mut self) -> Result<Option<Buffer>, NoMemory> {
        let buffer = match self.free.pop().or_else(|| self.pool.take()) {
            None if self.used > 0 => return Ok(None),
            None => self.pool.take_beyond().ok_or(NoMemory)?,
            Some(buffer) => buffer,
        };
        self.used = self.used.saturating_add(1);
        Ok(Some(buffer))
    }

    /// Returns a buffer after an operation. It is kept here, so that the next operation takes it without
    /// accessing the shared pool, unless another engine may be waiting for it.
    pub(super) fn put(&mut self, buffer: Buffer) {
        self.used = self.used.saturating_sub(1);
        if self.pool.is_exhausted() {
            self.pool.give_back(buffer);
        } else {
            self.free.push(buffer);
        }
    }

    /// Returns the buffers that aren't in use to the pool, except one.
    pub(super) fn idle(&mut self) {
        self.free.drain(1.min(self.free.len())..).for_each(|buffer| self.pool.give_back(buffer));
    }

    /// Makes the next transfer of `io`, and copies a write's data into the buffer. `None` if not all of the
    /// data could be copied, so that the old content of the buffer is never written.
    pub(super) fn begin(&self, io: &Io, data: Data<'_>, buffer: &mut Buffer) -> Option<Transfer> {
        let head = self.head(io);
        let end = io.remaining().saturating_add(head).min(BUFFER_SIZE as u64);
        let block = u64::from(self.alignment.offset.max(1));
        let len = end.next_multiple_of(block).min(BUFFER_SIZE as u64);
        let direction = match data {
            Data::In(_) => Direction::In,
            Data::Out(source) => {
                let room = buffer.bytes().get_mut(..len as usize)?;
                if source.copy_to(room) as u64 != len {
                    return None;
                }
                Direction::Out
            }
        };
        let offset = io.offset().saturating_sub(head);
        Some(Transfer { direction, memory: buffer.start(), offset, len: len as u32 })
    }

    /// Ends a transfer of `n` bytes, and copies a read's data out of the buffer. Returns how many of the
    /// bytes belong to `io`.
    pub(super) fn end(&self, io: &Io, data: Data<'_>, buffer: &mut Buffer, n: u64) -> u64 {
        let head = self.head(io);
        let end = n.min(BUFFER_SIZE as u64).min(io.remaining().saturating_add(head));
        match data {
            Data::In(sink) => {
                let read = buffer.bytes().get(head as usize..end as usize);
                sink.copy_from(read.unwrap_or_default()) as u64
            }
            Data::Out(_) => end.saturating_sub(head),
        }
    }

    /// Bytes of the first block before what is left of `io`.
    fn head(&self, io: &Io) -> u64 {
        io.offset() & u64::from(self.alignment.offset.saturating_sub(1))
    }
}
