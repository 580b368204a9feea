//! Engines carry out I/O on an image, one request at a time or many at once.

mod sync;

use std::io;
use std::os::fd::BorrowedFd;

use crate::buffers::{Mapped, Segments, Sink, Source};

pub use sync::SyncEngine;

/// Carries out the I/O of one queue. Completions may come in any order.
///
/// An [`Io`] is answered by handing it back in a [`Completion`]; until then the guest memory it
/// names stays mapped. So an engine must keep it as long as the kernel may touch that memory, and
/// an engine that is dropped first waits for what the kernel has in hand.
pub trait Engine: Send {
    /// Takes one operation. Its failure, too, is a completion.
    fn submit(&mut self, io: Io);

    /// Has everything submitted so far begin, in one system call where that is possible. Until then
    /// an engine may leave it lying.
    fn commit(&mut self) {}

    /// Hands over what has completed since the last call. Doesn't block.
    fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion));

    /// Readable when [`poll_completions`](Self::poll_completions) has something to hand over.
    /// `None` if that is so as soon as [`submit`](Self::submit) returns.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Operations submitted and not handed over yet.
    fn in_flight(&self) -> usize;
}

impl<E: Engine + ?Sized> Engine for Box<E> {
    fn submit(&mut self, io: Io) {
        (**self).submit(io);
    }

    fn commit(&mut self) {
        (**self).commit();
    }

    fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion)) {
        (**self).poll_completions(sink);
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).as_fd()
    }

    fn in_flight(&self) -> usize {
        (**self).in_flight()
    }
}

/// A finished operation.
#[derive(Debug)]
pub struct Completion {
    /// The operation, handed back.
    pub io: Io,
    /// All of its data was transferred, or an error of the host.
    pub result: io::Result<()>,
}

/// One operation on an image, and the guest memory it works on.
///
/// There is one value for each operation: it can't be copied, and its existence keeps the memory
/// mapped.
#[derive(Debug)]
pub struct Io {
    tag: u64,
    command: Command,
    durable: bool,
    offset: u64,
    /// Bytes of the image; of a read or write what `memory` has left.
    len: u64,
    memory: Mapped,
}

/// An [`Operation`] without its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes { unmap: bool },
    SecureErase,
}

/// What an [`Io`] asks for. The memory is what [`Io::advance`] has left of it.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// Fill guest memory from the image.
    Read(Sink<'a>),
    /// Store guest memory into the image.
    Write(Source<'a>),
    /// Bring every write that has completed to stable storage.
    Flush,
    /// As [`Image::discard`](crate::Image::discard).
    Discard,
    /// As [`Image::write_zeroes`](crate::Image::write_zeroes).
    WriteZeroes {
        /// The storage may be given back.
        unmap: bool,
    },
    /// As [`Image::secure_erase`](crate::Image::secure_erase).
    SecureErase,
}

impl Io {
    pub(crate) fn new(
        tag: u64,
        command: Command,
        durable: bool,
        (offset, len): (u64, u64),
        memory: Mapped,
    ) -> Self {
        Self { tag, command, durable, offset, len, memory }
    }

    /// Tells operations in flight apart.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// What to do, and with which memory.
    pub fn operation(&self) -> Operation<'_> {
        match self.command {
            Command::Read => Operation::Read(self.memory.sink()),
            Command::Write => Operation::Write(self.memory.source()),
            Command::Flush => Operation::Flush,
            Command::Discard => Operation::Discard,
            Command::WriteZeroes { unmap } => Operation::WriteZeroes { unmap },
            Command::SecureErase => Operation::SecureErase,
        }
    }

    /// What the operation changes must be on stable storage before it completes.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// The position in the image, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the image that are left to do; 0 for a flush.
    pub fn remaining(&self) -> u64 {
        self.len
    }

    /// Leaves `n` bytes behind, after a short transfer: the offset moves with the memory.
    pub fn advance(&mut self, n: u64) {
        let n = n.min(self.len);
        self.offset = self.offset.saturating_add(n);
        self.len = self.len.saturating_sub(n);
        self.memory.advance(usize::try_from(n).unwrap_or(usize::MAX));
    }

    pub(crate) fn into_segments(self) -> Segments {
        self.memory.into_segments()
    }
}
