//! Disk images.

mod alignment;
mod bounce_io;
mod commands;
mod descriptors;
mod device;
mod error;
mod files;
mod flusher;
mod format;
#[cfg(feature = "imago")]
mod imago;
mod lifetime;
mod lock;
mod locked_file;
mod open;
mod options;
mod parts_error;
#[cfg(feature = "serde")]
mod path_bytes;
mod range_call;
mod raw;
mod raw_files;
mod spares;
mod sys;
mod topology;
mod topology_error;
mod warning;
mod wear;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::buffers::{Sink, Source};

pub use self::error::OpenError;
pub use self::format::{ImageFormat, UnknownFormat};
#[cfg(feature = "imago")]
pub use self::imago::ImagoImage;
pub use alignment::Alignment;
pub use commands::Commands;
pub use files::{ImageFacts, ImageFiles};
pub use flusher::Flusher;
pub use lifetime::Lifetime;
pub use options::RawOptions;
pub use parts_error::PartsError;
pub use range_call::RangeCall;
pub use raw::RawImage;
pub use topology::Topology;
pub use topology_error::TopologyError;
pub use warning::ImageWarning;

/// The storage of a disk, shared by all queues. Accesses are positional and vectored.
///
/// Callers check requests against [`capacity`](Self::capacity), and never write to an image that
/// [is read-only](Self::is_read_only).
pub trait Image: Send + Sync {
    /// The size in bytes, a multiple of 512. It changes only when the operator resizes the disk.
    fn capacity(&self) -> u64;

    /// Whether writes are refused.
    fn is_read_only(&self) -> bool;

    /// Units and alignments of the storage, to be shown to the guest.
    fn topology(&self) -> Topology {
        Topology::default()
    }

    /// The commands beyond reads, writes and flushes that the storage supports. The value is constant.
    fn commands(&self) -> Commands {
        Commands::default()
    }

    /// Warnings for the operator, to be logged after the image was opened or its
    /// [size read again](RawImage::refresh_capacity).
    fn warnings(&self) -> Vec<ImageWarning> {
        Vec::new()
    }

    /// Whether the image's file was deleted: its data is lost when it is closed.
    fn is_deleted(&self) -> bool {
        false
    }

    /// Reads from `offset` into `sink`, and returns the number of bytes read, which may be less than `sink`
    /// has room for. 0 is the end of the image.
    ///
    /// # Errors
    /// The host's.
    fn read_vectored_at(&self, sink: Sink<'_>, offset: u64) -> io::Result<usize>;

    /// Writes `source` at `offset`, and returns the number of bytes written, which may be less than
    /// `source` has.
    ///
    /// # Errors
    /// The host's. `ENOSPC`, `EDQUOT` and `EFBIG` say that there was no room for `source`, and that
    /// nothing written before is lost.
    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize>;

    /// The file of an image whose bytes are the disk's, at the same offsets, and whose accesses go through the page
    /// cache: an engine may read and write it by calls of its own, which must not go beyond the image's end.
    fn cached_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Flushes everything written to stable storage.
    ///
    /// # Errors
    /// The host's. Data written before may be lost then.
    fn flush(&self) -> io::Result<()>;

    /// A flusher for one queue. Linux reports a write-back error once for each open file description, so
    /// that of several queues that use [`flush`](Self::flush) only the first would get the error. `None` if
    /// `flush` reports an error to every caller, or there is no better way.
    fn flusher(&self) -> Option<Box<dyn Flusher>> {
        None
    }

    /// Deallocates `len` bytes from `offset` on, whose content is undefined afterwards. This is a hint:
    /// parts of the storage's units are left unchanged (`VIRTIO_BLK_T_DISCARD`, virtio 1.2 §5.2.6).
    ///
    /// # Errors
    /// The host's; [`Unsupported`](io::ErrorKind::Unsupported) without [`Commands::discard`].
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Zeroes `len` bytes from `offset` on. They may be deallocated only with `unmap`
    /// (`VIRTIO_BLK_T_WRITE_ZEROES`, virtio 1.2 §5.2.6).
    ///
    /// # Errors
    /// The host's; [`Unsupported`](io::ErrorKind::Unsupported) without
    /// [`Commands::write_zeroes`].
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let _ = (offset, len, unmap);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Erases `len` bytes from `offset` on, with all copies that the storage may have of them
    /// (`VIRTIO_BLK_T_SECURE_ERASE`, virtio 1.2 §5.2.6).
    ///
    /// # Errors
    /// The host's; [`Unsupported`](io::ErrorKind::Unsupported) without
    /// [`Commands::secure_erase`].
    fn secure_erase(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The wear that the storage reports (`VIRTIO_BLK_T_GET_LIFETIME`).
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

    fn cached_file(&self) -> Option<BorrowedFd<'_>> {
        (**self).cached_file()
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
