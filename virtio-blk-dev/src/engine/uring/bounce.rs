use std::ptr::NonNull;

use super::pool::{BUFFER_SIZE, BouncePool, Buffer};
use crate::engine::{Data, Io};
use crate::image::Alignment;

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
}

/// There is no memory for a buffer.
#[derive(Debug)]
pub(super) struct NoMemory;

/// Copies data on its way for guest memory that direct I/O doesn't take: not aligned, or, as other
/// domains' pages are, nothing that the kernel can pin.
#[derive(Debug)]
pub(super) struct Bounce {
    /// Of memory, offsets and lengths, as the kernel demands it.
    alignment: Alignment,
    /// Guest memory can't be pinned.
    always: bool,
    pool: BouncePool,
    /// Taken from the pool, and in no operation's use.
    free: Vec<Buffer>,
    /// In an operation's use.
    used: usize,
}

impl Bounce {
    /// With `into_guest` unless guest memory is known not to be pinned.
    pub(super) fn new(pool: BouncePool, alignment: Alignment, into_guest: bool) -> Self {
        Self { alignment, always: !into_guest, pool, free: Vec::new(), used: 0 }
    }

    /// The kernel refused guest memory: it isn't asked again.
    pub(super) fn unpinnable(&mut self) {
        self.always = true;
    }

    /// `data`, the rest of `io`'s, can't be transferred without a buffer.
    pub(super) fn is_needed(&self, io: &Io, data: Data<'_>) -> bool {
        self.always || !self.alignment.is_met(data.iovecs(), io.offset())
    }

    /// Only whole blocks can be written: what is beside a part of one may be another queue's.
    pub(super) fn is_possible(&self, io: &Io, data: Data<'_>) -> bool {
        match data {
            Data::Out(_) => self.alignment.is_met_by(io.offset() | io.remaining()),
            Data::In(_) => true,
        }
    }

    /// A buffer; `None` if the pool is exhausted. Then this engine has some in use, whose completion
    /// has it look again.
    pub(super) fn take(&mut self) -> Result<Option<Buffer>, NoMemory> {
        let buffer = match self.free.pop().or_else(|| self.pool.take()) {
            None if self.used > 0 => return Ok(None),
            None => self.pool.take_beyond().ok_or(NoMemory)?,
            Some(buffer) => buffer,
        };
        self.used = self.used.saturating_add(1);
        Ok(Some(buffer))
    }

    /// Takes back a buffer that an operation needs no longer. It is kept here, where the next one is
    /// taken from without a look at what other queues do, unless one of them may be waiting for it.
    pub(super) fn put(&mut self, buffer: Buffer) {
        self.used = self.used.saturating_sub(1);
        if self.pool.is_exhausted() {
            self.pool.give_back(buffer);
        } else {
            self.free.push(buffer);
        }
    }

    /// Gives back to the pool what isn't in use, but for one.
    pub(super) fn idle(&mut self) {
        self.free.drain(1.min(self.free.len())..).for_each(|buffer| self.pool.give_back(buffer));
    }

    /// The transfer that is next for `io`: a write's data is in the buffer then. `None` if not all of
    /// that data could be copied, so that what the buffer held before is never stored.
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

    /// Of `n` bytes transferred, those that were `io`'s; a read's data is in its place then.
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

    /// Bytes of the first block that come before what is left of `io`.
    fn head(&self, io: &Io) -> u64 {
        io.offset() & u64::from(self.alignment.offset.saturating_sub(1))
    }
}
