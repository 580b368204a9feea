//! System calls that the standard library doesn't have.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `_IO(0x12, nr)` (linux/fs.h), in this architecture's encoding.
const fn blk(nr: libc::Ioctl) -> libc::Ioctl {
    (libc::BLKSSZGET & !0xff) | nr
}

/// `BLKGETSIZE64`: `_IOR(0x12, 114, size_t)`.
const BLKGETSIZE64: libc::c_ulong =
    (2 << 30) | ((size_of::<usize>() as libc::c_ulong) << 16) | (0x12 << 8) | 114;
/// Whether a block device is read-only, one `int`.
pub(super) const BLKROGET: libc::Ioctl = blk(94);
pub(super) const BLKDISCARD: libc::Ioctl = blk(119);
pub(super) const BLKIOMIN: libc::Ioctl = blk(120);
pub(super) const BLKIOOPT: libc::Ioctl = blk(121);
pub(super) const BLKALIGNOFF: libc::Ioctl = blk(122);
pub(super) const BLKSECDISCARD: libc::Ioctl = blk(125);

/// A block device's size in bytes.
pub(super) fn device_size(device: &File) -> io::Result<u64> {
    let mut size = 0u64;
    // SAFETY: the descriptor is open, and the kernel stores a u64.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64 as _, &raw mut size) };
    done(result).map(|()| size)
}

/// The result of an ioctl of a block device that stores one `int`: `BLKROGET`, `BLKSSZGET`, `BLKPBSZGET`,
/// `BLKALIGNOFF`, `BLKIOMIN` or `BLKIOOPT`. A negative value is an error.
pub(super) fn device_int(device: &File, request: libc::Ioctl) -> io::Result<u32> {
    let mut value: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel stores an int.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut value) };
    done(result)?;
    u32::try_from(value).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// `BLKDISCARD` and `BLKSECDISCARD`, which take offset and length in bytes.
pub(super) fn device_range(
    device: &File,
    request: libc::Ioctl,
    offset: u64,
    len: u64,
) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: the descriptor is open, and the kernel reads a uint64_t[2], which outlives the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), request, &raw const range) })
}

/// fallocate(2), repeated when a signal interrupts it.
pub(super) fn fallocate(file: &File, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from_raw_os_error(libc::EFBIG);
    let offset = offset.try_into().map_err(too_large)?;
    let len = len.try_into().map_err(too_large)?;
    loop {
        // SAFETY: the descriptor is open; the call takes nothing else but numbers.
        let result = unsafe { libc::fallocate64(file.as_raw_fd(), mode, offset, len) };
        match done(result) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a part of a file is a hole, which reads as zeroes (lseek(2), `SEEK_DATA`). False is also
/// that the kernel or the file system doesn't say. The file's position moves.
#[cfg(feature = "imago")]
pub(super) fn is_hole(file: &File, offset: u64, len: u64) -> bool {
    let Ok(start) = offset.try_into() else { return false };
    // SAFETY: the descriptor is open; the call takes nothing else but numbers.
    let data = unsafe { libc::lseek64(file.as_raw_fd(), start, libc::SEEK_DATA) };
    match u64::try_from(data) {
        Ok(data) => data >= offset.saturating_add(len),
        // Nothing but a hole follows.
        Err(_) => io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO),
    }
}

/// What direct I/O on `file` must be aligned to, memory and offset (`STATX_DIOALIGN`, Linux 6.1).
/// Zeroes mean that there is no direct I/O; `None`, that the kernel or the file system doesn't tell.
pub(super) fn direct_alignment(file: &File) -> io::Result<Option<(u32, u32)>> {
    // SAFETY: `statx` is plain data, of which all-zero is a value.
    let mut statx: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the path an empty string, and the kernel stores a `statx`.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut statx,
        )
    };
    done(result)?;
    let said = statx.stx_mask & libc::STATX_DIOALIGN != 0;
    Ok(said.then_some((statx.stx_dio_mem_align, statx.stx_dio_offset_align)))
}

/// Whether a regular file has no link left. Uses cached attributes: a network file system isn't queried.
pub(super) fn is_deleted(file: &File) -> bool {
    // SAFETY: `statx` is plain data, of which all-zero is a value.
    let mut statx: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the path an empty string, and the kernel stores a `statx`.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
            libc::STATX_TYPE | libc::STATX_NLINK,
            &raw mut statx,
        )
    };
    let is_file = u32::from(statx.stx_mode) & libc::S_IFMT == libc::S_IFREG;
    let said = statx.stx_mask & libc::STATX_NLINK != 0;
    done(result).is_ok() && said && is_file && statx.stx_nlink == 0
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
