use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::error::OpenError;
use super::lock::lock;
use super::sys;

/// Opens and locks a regular file or block device.
pub(super) fn open_locked(
    path: &Path,
    read_only: bool,
    direct: bool,
) -> Result<(File, Metadata), OpenError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        match (source.kind(), source.raw_os_error()) {
            (io::ErrorKind::NotFound, _) => OpenError::Missing { path, source },
            (io::ErrorKind::ResourceBusy, _) => OpenError::InUse { path },
            (_, Some(libc::EINVAL)) if direct => OpenError::Direct { path, source },
            _ if read_only => OpenError::Unreadable { path, source },
            _ => OpenError::Unwritable { path, source },
        }
    };
    let of_kind = |metadata: &Metadata| match other_kind(metadata) {
        Some(found) => Err(OpenError::Kind { path: path.to_owned(), found }),
        None => Ok(()),
    };
    // Checked before opening, which would block on a FIFO and may affect a character device.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    of_kind(&metadata)?;
    let mut flags = if direct { libc::O_DIRECT } else { 0 };
    if !read_only && metadata.file_type().is_block_device() {
        // EBUSY if it is mounted in the host, or used by a volume manager (open(2)).
        flags |= libc::O_EXCL;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(!read_only)
        .custom_flags(flags)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    of_kind(&metadata)?;
    if !read_only && metadata.file_type().is_block_device() {
        // The kernel opens a read-only device for writing, and then fails each write.
        let flag = sys::device_int(&file, sys::BLKROGET);
        may_be_written(flag)
            .map_err(|source| OpenError::Unwritable { path: path.to_owned(), source })?;
    }
    lock(&file, !read_only).map_err(|source| {
        let path = path.to_owned();
        match source.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => OpenError::InUse { path },
            _ => OpenError::Lock { path, source },
        }
    })?;
    Ok((file, metadata))
}

/// Fails if the read-only flag of a block device is set. A device without the flag is taken as writable.
fn may_be_written(flag: io::Result<u32>) -> io::Result<()> {
    match flag {
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => {
            let message = "the block device is read-only (`blockdev --getro`)";
            Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, message))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_device_that_says_it_is_read_only_is_not_written() {
        assert!(may_be_written(Ok(0)).is_ok());
        assert!(may_be_written(Err(io::Error::from_raw_os_error(libc::ENOTTY))).is_ok());
        let error = may_be_written(Ok(1)).unwrap_err();
        assert!(error.to_string().contains("read-only"), "{error}");
    }
}
