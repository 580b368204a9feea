use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::lock::lock;
use super::{Image, Topology};
use crate::buffers::{Sink, Source};
use crate::config::SECTOR_SIZE;
use crate::error::OpenError;

/// A file or block device whose bytes are the disk's bytes.
///
/// The format is what the caller states: contents are never looked at, so a guest that writes
/// another format's header into its disk changes nothing.
#[derive(Debug)]
pub struct RawImage {
    file: File,
    capacity: u64,
    trimmed: u64,
    logical_block_size: u32,
    read_only: bool,
}

impl RawImage {
    /// Opens and locks the file or block device at `path`: exclusively, or together with other
    /// readers if `read_only`.
    ///
    /// # Errors
    /// See [`OpenError`]; each names `path` and what to do.
    pub fn open(path: impl AsRef<Path>, read_only: bool) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let failed = |source: io::Error| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => OpenError::Missing { path, source },
                _ if read_only => OpenError::Unreadable { path, source },
                _ => OpenError::Unwritable { path, source },
            }
        };
        let of_kind = |metadata: &Metadata| match other_kind(metadata) {
            Some(found) => Err(OpenError::Kind { path: path.to_owned(), found }),
            None => Ok(()),
        };
        // Before opening: that would block on a FIFO, and may disturb a character device.
        of_kind(&std::fs::metadata(path).map_err(failed)?)?;
        let file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        of_kind(&metadata)?;

        lock(&file, !read_only).map_err(|source| {
            let path = path.to_owned();
            match source.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => OpenError::InUse { path },
                _ => OpenError::Lock { path, source },
            }
        })?;

        let size_failed = |source| OpenError::Size { path: path.to_owned(), source };
        let (size, logical_block_size) = if metadata.file_type().is_block_device() {
            (device_size(&file).map_err(size_failed)?, block_size(&file).map_err(size_failed)?)
        } else {
            (metadata.len(), 512)
        };
        let trimmed = size % SECTOR_SIZE;
        let capacity = size.saturating_sub(trimmed);
        if capacity == 0 {
            return Err(OpenError::Empty { path: path.to_owned(), size });
        }
        Ok(Self { file, capacity, trimmed, logical_block_size, read_only })
    }

    /// Bytes at the file's end that are no whole sector, and that the guest doesn't see.
    pub fn trimmed(&self) -> u64 {
        self.trimmed
    }
}

impl AsFd for RawImage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Image for RawImage {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn topology(&self) -> Topology {
        Topology {
            logical_block_size: self.logical_block_size,
            physical_block_size: self.logical_block_size,
            ..Topology::default()
        }
    }

    fn read_vectored_at(&self, sink: Sink<'_>, offset: u64) -> io::Result<usize> {
        let (iovecs, count) = clamp(sink.iovecs());
        let offset = file_offset(offset)?;
        // SAFETY: the descriptor is open, and the memory of `iovecs` is writable while `sink`
        // lives. The guest sharing it is no concern of the kernel, which copies into it.
        let n = unsafe { libc::preadv64(self.file.as_raw_fd(), iovecs, count, offset) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize> {
        let (iovecs, count) = clamp(source.iovecs());
        let offset = file_offset(offset)?;
        // SAFETY: as above, the memory of `iovecs` being readable while `source` lives.
        let n = unsafe { libc::pwritev64(self.file.as_raw_fd(), iovecs, count, offset) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What a system call takes at once; the rest is a short transfer's.
fn clamp(iovecs: &[libc::iovec]) -> (*const libc::iovec, libc::c_int) {
    (iovecs.as_ptr(), iovecs.len().min(libc::UIO_MAXIOV as usize) as libc::c_int)
}

fn file_offset(offset: u64) -> io::Result<libc::off64_t> {
    offset.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn other_kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        None
    } else if kind.is_dir() {
        Some("directory")
    } else if kind.is_fifo() {
        Some("FIFO")
    } else if kind.is_socket() {
        Some("socket")
    } else {
        Some("character device")
    }
}

/// `BLKGETSIZE64` (linux/fs.h), which libc doesn't name: `_IOR(0x12, 114, size_t)`.
fn device_size(device: &File) -> io::Result<u64> {
    const BLKGETSIZE64: libc::c_ulong =
        (2 << 30) | ((size_of::<usize>() as libc::c_ulong) << 16) | (0x12 << 8) | 114;
    let mut size = 0u64;
    // SAFETY: the descriptor is open, and the kernel stores a u64.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64 as _, &raw mut size) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(size) }
}

/// `BLKSSZGET` (linux/fs.h): `_IO(0x12, 104)`, the logical block size.
fn block_size(device: &File) -> io::Result<u32> {
    const BLKSSZGET: libc::c_ulong = (0x12 << 8) | 104;
    let mut size: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel stores an int.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKSSZGET as _, &raw mut size) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(size).map_err(|_| io::ErrorKind::InvalidData.into())
}
