use super::operation::{Command, Operation};
use crate::buffers::Segments;

/// One operation on an image, and the guest memory it works on.
///
/// There is one value for each operation: it can't be copied, and its existence keeps the memory
/// mapped.
#[derive(Debug)]
pub struct Io(Box<Inner>);

/// Boxed, so that an operation is passed on as a pointer; the allocation is reused.
#[derive(Debug)]
struct Inner {
    tag: u64,
    command: Command,
    stability: Stability,
    /// The value of [`Io::is_plain`], which is read several times for each request.
    plain: bool,
    offset: u64,
    /// Bytes of the image that are left; for a read or write the same as in `memory`.
    len: u64,
    memory: Segments,
}

/// Whether an operation's completion makes its change stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stability {
    /// It doesn't.
    None = 0,
    /// Its change is on stable storage when it completes.
    Durable = 1,
    /// As `Durable`, but it failed for lack of space, before the storage took its data.
    NoSpace = 2,
}

impl Io {
    /// Identifies the operation among those in flight.
    #[inline]
    pub fn tag(&self) -> u64 {
        self.0.tag
    }

    /// What to do, and with which memory.
    pub fn operation(&self) -> Operation<'_> {
        match self.0.command {
            // SAFETY: what was gathered stays mapped as long as the `Io` exists, which `IoAllocation::begin`
            // asks for; a read's was gathered for writing.
            Command::Read => Operation::Read(unsafe { self.0.memory.sink() }),
            // SAFETY: as above.
            Command::Write => Operation::Write(unsafe { self.0.memory.source() }),
            Command::Flush => Operation::Flush,
            Command::Discard => Operation::Discard,
            Command::WriteZeroes { unmap } => Operation::WriteZeroes { unmap },
            Command::SecureErase => Operation::SecureErase,
        }
    }

    /// Whether its change must be on stable storage before it completes.
    pub fn is_durable(&self) -> bool {
        self.0.stability != Stability::None
    }

    /// Records that the operation failed because the storage
    /// [had no room](super::no_room::is_no_room) for its data: nothing written before is lost.
    pub(crate) fn set_no_space(&mut self) {
        if self.is_durable() {
            self.0.stability = Stability::NoSpace;
        }
    }

    /// Whether its failure means that data written before may be lost.
    pub(crate) fn loses_durability(&self) -> bool {
        self.is_stable() && self.0.stability != Stability::NoSpace
    }

    /// The kind of operation.
    pub(crate) fn command(&self) -> Command {
        self.0.command
    }

    /// Whether its success tells the driver that data is on stable storage.
    #[inline]
    pub(crate) fn is_stable(&self) -> bool {
        self.is_durable() || self.0.command == Command::Flush
    }

    /// Whether it is a read, or a write that needn't be durable: no other operation has to be considered
    /// when it is submitted or completed.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.0.plain
    }

    /// The offset in the image, in bytes.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Bytes of the image that are left; 0 for a flush.
    pub fn remaining(&self) -> u64 {
        self.0.len
    }

    /// Advances by `n` bytes after a short transfer.
    pub fn advance(&mut self, n: u64) {
        let io = &mut *self.0;
        let n = n.min(io.len);
        io.offset = io.offset.saturating_add(n);
        io.len = io.len.saturating_sub(n);
        io.memory.advance(usize::try_from(n).unwrap_or(usize::MAX));
    }

    /// Turns it into the next operation of the same request, which has no memory.
    pub(crate) fn into_next(mut self, command: Command, (offset, len): (u64, u64)) -> Self {
        let io = &mut *self.0;
        io.set(command, io.stability != Stability::None);
        (io.offset, io.len) = (offset, len);
        self
    }

    /// Ends the operation. The allocation can be used for another one.
    #[inline]
    pub(crate) fn end(mut self) -> IoAllocation {
        self.0.memory.clear();
        IoAllocation(self)
    }
}

impl Inner {
    #[inline]
    fn set(&mut self, command: Command, durable: bool) {
        let stability = if durable { Stability::Durable } else { Stability::None };
        (self.command, self.stability) = (command, stability);
        self.plain = matches!(command, Command::Read | Command::Write) && !durable;
    }
}

/// The allocations of an [`Io`], to be used for the next one.
#[derive(Debug)]
pub(crate) struct IoAllocation(Io);

impl IoAllocation {
    #[cold]
    pub(crate) fn new() -> Self {
        let memory = Segments::default();
        let (tag, command, offset, len) = (0, Command::Flush, 0, 0);
        let (stability, plain) = (Stability::None, false);
        Self(Io(Box::new(Inner { tag, command, stability, plain, offset, len, memory })))
    }

    /// The list to gather the next operation's memory into.
    #[inline]
    pub(crate) fn segments(&mut self) -> &mut Segments {
        &mut self.0.0.memory
    }

    /// # Safety
    /// Until the [`Io`] is [ended](Io::end) or dropped, everything gathered must stay mapped with
    /// the permission it was gathered with.
    #[inline]
    pub(crate) unsafe fn begin(
        mut self,
        tag: u64,
        command: Command,
        durable: bool,
        (offset, len): (u64, u64),
    ) -> Io {
        let io = &mut *self.0.0;
        io.set(command, durable);
        (io.tag, io.offset, io.len) = (tag, offset, len);
        self.0
    }
}
