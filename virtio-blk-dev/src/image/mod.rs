//! Disk images.

mod lock;
mod raw;

use std::io;
use std::sync::Arc;

use crate::buffers::{Sink, Source};

pub use raw::RawImage;

/// The storage behind a disk: positional, vectored, shared by all queues.
///
/// Requests reach it checked against [`capacity`](Self::capacity), and an image that
/// [is read-only](Self::is_read_only) is never written.
pub trait Image: Send + Sync {
    /// The size in bytes, a multiple of 512. It doesn't change.
    fn capacity(&self) -> u64;

    /// Whether writes are refused.
    fn is_read_only(&self) -> bool;

    /// The unit the storage works in, in bytes, as the guest may be told.
    fn logical_block_size(&self) -> u32 {
        512
    }

    /// Fills `sink` from `offset` bytes on, and returns how many bytes that were. Fewer than
    /// `sink` has room for is no error: the caller goes on from there. 0 is the image's end.
    ///
    /// # Errors
    /// The host's.
    fn read_vectored_at(&self, sink: Sink<'_>, offset: u64) -> io::Result<usize>;

    /// Stores `source` from `offset` bytes on, and returns how many bytes that were, as above.
    ///
    /// # Errors
    /// The host's.
    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize>;

    /// Brings everything written to stable storage.
    ///
    /// # Errors
    /// The host's. What was written before may be lost then.
    fn flush(&self) -> io::Result<()>;
}

impl<I: Image + ?Sized> Image for Arc<I> {
    fn capacity(&self) -> u64 {
        (**self).capacity()
    }

    fn is_read_only(&self) -> bool {
        (**self).is_read_only()
    }

    fn logical_block_size(&self) -> u32 {
        (**self).logical_block_size()
    }

    fn read_vectored_at(&self, sink: Sink<'_>, offset: u64) -> io::Result<usize> {
        (**self).read_vectored_at(sink, offset)
    }

    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize> {
        (**self).write_vectored_at(source, offset)
    }

    fn flush(&self) -> io::Result<()> {
        (**self).flush()
    }
}
