use crate::buffers::{Sink, Source};

/// The kind of an [`Operation`], without its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes { unmap: bool },
    SecureErase,
}

/// What an [`Io`](crate::Io) asks for. The memory is what [`Io::advance`](crate::Io::advance) has left of it.
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

/// The memory of a read or a write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    /// A read's memory, to be filled.
    In(Sink<'a>),
    /// A write's memory, to be stored.
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

    /// Whether it changes a range of the image without transferring data, which not all storage supports.
    pub(crate) fn is_range(self) -> bool {
        matches!(self, Self::Discard | Self::WriteZeroes { .. } | Self::SecureErase)
    }
}
