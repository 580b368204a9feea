use std::io;

use crate::buffers::{Segments, Sink, Source};

/// One operation on an image, and the guest memory it works on.
///
/// There is one value for each operation: it can't be copied, and its existence keeps the memory
/// mapped.
#[derive(Debug)]
pub struct Io(Box<Inner>);

/// In a box that is used again, so that an operation is handed on as a pointer.
#[derive(Debug)]
struct Inner {
    tag: u64,
    command: Command,
    stability: Stability,
    /// What [`Io::is_plain`] says, which each request is asked more than once.
    plain: bool,
    offset: u64,
    /// Bytes of the image; of a read or write what `memory` has left.
    len: u64,
    memory: Segments,
}

/// What an operation says of stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stability {
    /// Nothing.
    None = 0,
    /// What it changes is there when it completes.
    Durable = 1,
    /// As `Durable`, but it failed before the storage took its data.
    Refused = 2,
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

/// The memory of an operation that transfers data: no other has any, or can be given a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    /// A read's, to be filled.
    In(Sink<'a>),
    /// A write's, to be stored.
    Out(Source<'a>),
}

impl<'a> Data<'a> {
    pub(crate) fn iovecs(self) -> &'a [libc::iovec] {
        match self {
            Self::In(sink) => sink.iovecs(),
            Self::Out(source) => source.iovecs(),
        }
    }
}

impl<'a> Operation<'a> {
    /// The memory of a read or a write.
    pub(crate) fn data(self) -> Option<Data<'a>> {
        match self {
            Self::Read(sink) => Some(Data::In(sink)),
            Self::Write(source) => Some(Data::Out(source)),
            Self::Flush | Self::Discard | Self::WriteZeroes { .. } | Self::SecureErase => None,
        }
    }

    /// It changes a range of the image without data, which not every storage can be asked for.
    pub(crate) fn is_range(self) -> bool {
        matches!(self, Self::Discard | Self::WriteZeroes { .. } | Self::SecureErase)
    }
}

impl Io {
    /// Tells operations in flight apart.
    #[inline]
    pub fn tag(&self) -> u64 {
        self.0.tag
    }

    /// What to do, and with which memory.
    pub fn operation(&self) -> Operation<'_> {
        match self.0.command {
            // SAFETY: what was gathered stays mapped as long as the `Io` exists, which `Spare::begin`
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

    /// What the operation changes must be on stable storage before it completes.
    pub fn is_durable(&self) -> bool {
        self.0.stability != Stability::None
    }

    /// The operation failed, and as the storage [had no room](is_no_room) for its data: nothing
    /// else is lost with it.
    pub(crate) fn refuse(&mut self) {
        if self.is_durable() {
            self.0.stability = Stability::Refused;
        }
    }

    /// Whether its failure tells that something written before may be lost.
    pub(crate) fn is_loss(&self) -> bool {
        self.is_stable() && self.0.stability != Stability::Refused
    }

    /// As [`operation`](Self::operation), without the memory.
    pub(crate) fn command(&self) -> Command {
        self.0.command
    }

    /// Whether its success tells the driver that something is on stable storage.
    #[inline]
    pub(crate) fn is_stable(&self) -> bool {
        self.is_durable() || self.0.command == Command::Flush
    }

    /// Whether it moves data, and promises nothing: nothing comes before it, after it or of it but
    /// its request's answer.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.0.plain
    }

    /// The position in the image, in bytes.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Bytes of the image that are left to do; 0 for a flush.
    pub fn remaining(&self) -> u64 {
        self.0.len
    }

    /// Leaves `n` bytes behind, after a short transfer: the offset moves with the memory.
    pub fn advance(&mut self, n: u64) {
        let io = &mut *self.0;
        let n = n.min(io.len);
        io.offset = io.offset.saturating_add(n);
        io.len = io.len.saturating_sub(n);
        io.memory.advance(usize::try_from(n).unwrap_or(usize::MAX));
    }

    /// The next operation of the same request, which has no memory to move.
    pub(crate) fn again(mut self, command: Command, (offset, len): (u64, u64)) -> Self {
        let io = &mut *self.0;
        io.set(command, io.stability != Stability::None);
        (io.offset, io.len) = (offset, len);
        self
    }

    /// Ends the operation: what is left can become another one, by [`Spare::begin`].
    #[inline]
    pub(crate) fn end(mut self) -> Spare {
        self.0.memory.clear();
        Spare(self)
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

/// An operation that isn't one, with the memory of one.
#[derive(Debug)]
pub(crate) struct Spare(Io);

impl Spare {
    #[cold]
    pub(crate) fn new() -> Self {
        let memory = Segments::default();
        let (tag, command, offset, len) = (0, Command::Flush, 0, 0);
        let (stability, plain) = (Stability::None, false);
        Self(Io(Box::new(Inner { tag, command, stability, plain, offset, len, memory })))
    }

    /// Where to gather the next operation's memory.
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

/// Whether a write says by this that there was no room for its data: the file system is full
/// (`ENOSPC`), or the user's part of it (`EDQUOT`), or the file may not become so large (`EFBIG`).
///
/// From write(2) this means that the kernel took none of the data, and whatever it took before is as
/// safe as it was. From fsync(2), or from the part of an `RWF_DSYNC` write that is one, it means that
/// data which had been taken could not be stored: file systems that allocate when they write back,
/// and thin volumes, are full only then. That is a loss like any other.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}
