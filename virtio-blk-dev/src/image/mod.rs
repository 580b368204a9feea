//! Disk images.

mod alignment;
mod bounce_io;
mod commands;
mod device;
mod error;
mod flusher;
mod format;
#[cfg(feature = "imago")]
mod imago;
mod lock;
mod locked_file;
mod open;
mod options;
mod range;
mod raw;
mod sys;
mod topology;
mod warning;

use std::io;
use std::sync::Arc;

use crate::buffers::{Sink, Source};

pub use self::error::OpenError;
pub use self::format::{ImageFormat, UnknownFormat};
#[cfg(feature = "imago")]
pub use self::imago::ImagoImage;
pub use alignment::Alignment;
pub use commands::{Commands, Lifetime};
pub use flusher::Flusher;
pub use options::RawOptions;
pub use range::RangeCall;
pub use raw::RawImage;
pub use topology::Topology;
pub use warning::ImageWarning;

/// The storage behind a disk: positional, vectored, shared by all queues.
///
/// Requests reach it checked against [`capacity`](Self::capacity), and an image that
/// [is read-only](Self::is_read_only) is never written.
pub trait Image: Send + Sync {
    /// The size in bytes, a multiple of 512. It changes only when the operator resizes the disk.
    fn capacity(&self) -> u64;

    /// Whether writes are refused.
    fn is_read_only(&self) -> bool;

    /// Units and alignments of the storage, as the guest may be told.
    fn topology(&self) -> Topology {
        Topology::default()
    }

    /// Which commands beyond reads, writes and flushes the storage really carries out. None, unless
    /// the image says otherwise; it doesn't change.
    fn commands(&self) -> Commands {
        Commands::default()
    }

    /// What the operator should know of the image though it is served, to be logged when it was
    /// opened or [read anew](RawImage::refresh_capacity).
    fn warnings(&self) -> Vec<ImageWarning> {
        Vec::new()
    }

    /// Whether the image's file was deleted: what the guest writes is gone when it is closed.
    fn is_deleted(&self) -> bool {
        false
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
    /// The host's. `ENOSPC`, `EDQUOT` and `EFBIG` say that there was no room for `source`, and that
    /// nothing written before is lost.
    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize>;

    /// Brings everything written to stable storage.
    ///
    /// # Errors
    /// The host's. What was written before may be lost then.
    fn flush(&self) -> io::Result<()>;

    /// By what an engine flushes for its queue, if several queues that flush by
    /// [`flush`](Self::flush) could miss each other's errors: Linux reports a write-back error once
    /// for each open file description, to whoever asks first, and the next one is told that all is
    /// well. `None`: `flush` itself fails for all of them, or there is nothing better.
    fn flusher(&self) -> Option<Box<dyn Flusher>> {
        None
    }

    /// Gives back the storage of `len` bytes from `offset` on, whose content is then undefined:
    /// a hint, of which as much as the storage's units allow is done
    /// (`VIRTIO_BLK_T_DISCARD`, virtio 1.2 §5.2.6).
    ///
    /// # Errors
    /// The host's; [`Unsupported`](io::ErrorKind::Unsupported) without [`Commands::discard`].
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Has `len` bytes from `offset` on read as zeroes; with `unmap` their storage may be given
    /// back, without it none is (`VIRTIO_BLK_T_WRITE_ZEROES`, virtio 1.2 §5.2.6).
    ///
    /// # Errors
    /// The host's; [`Unsupported`](io::ErrorKind::Unsupported) without
    /// [`Commands::write_zeroes`].
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let _ = (offset, len, unmap);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Erases `len` bytes from `offset` on, and every copy the storage may have kept of them
    /// (`VIRTIO_BLK_T_SECURE_ERASE`, virtio 1.2 §5.2.6).
    ///
    /// # Errors
    /// The host's; [`Unsupported`](io::ErrorKind::Unsupported) without
    /// [`Commands::secure_erase`].
    fn secure_erase(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The wear of the storage, as it reports it itself (`VIRTIO_BLK_T_GET_LIFETIME`).
    ///
    /// # Errors
    /// The host's; [`Unsupported`](io::ErrorKind::Unsupported) without [`Commands::lifetime`].
    fn lifetime(&self) -> io::Result<Lifetime> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl<I: Image + ?Sized> Image for Arc<I> {
    fn capacity(&self) -> u64 {
        (**self).capacity()
    }

    fn is_read_only(&self) -> bool {
        (**self).is_read_only()
    }

    fn topology(&self) -> Topology {
        (**self).topology()
    }

    fn commands(&self) -> Commands {
        (**self).commands()
    }

    fn warnings(&self) -> Vec<ImageWarning> {
        (**self).warnings()
    }

    fn is_deleted(&self) -> bool {
        (**self).is_deleted()
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

    fn flusher(&self) -> Option<Box<dyn Flusher>> {
        (**self).flusher()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        (**self).write_zeroes(offset, len, unmap)
    }

    fn secure_erase(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).secure_erase(offset, len)
    }

    fn lifetime(&self) -> io::Result<Lifetime> {
        (**self).lifetime()
    }
}
