use std::io;

use super::sys;

/// The system call that carries out a command on a range of a raw image, for engines that make their own
/// system calls.
///
/// If the call fails as [unsupported](Self::is_unsupported), the engine should fall back to the method of
/// [`Image`](crate::Image).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeCall {
    /// fallocate(2) with this mode.
    Fallocate(i32),
    /// ioctl(2) with this request, and offset and length as a `uint64_t[2]`. Both must be
    /// multiples of the device's logical block size.
    Ioctl(u32),
}

const PUNCH_HOLE: RangeCall =
    RangeCall::Fallocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE);
const ZERO_RANGE: RangeCall =
    RangeCall::Fallocate(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE);

impl RangeCall {
    /// The call that discards: a hole in a file, `BLKDISCARD` on a device.
    pub const fn discard(is_block_device: bool) -> Self {
        if is_block_device { Self::Ioctl(sys::BLKDISCARD as u32) } else { PUNCH_HOLE }
    }

    /// The call that zeroes. It is the same for files and devices: on a block device a hole is zeroes that
    /// may be deallocated, and a zeroed range is zeroes that stay allocated.
    pub const fn write_zeroes(unmap: bool) -> Self {
        if unmap { PUNCH_HOLE } else { ZERO_RANGE }
    }

    /// The call that erases securely, on a block device.
    pub const fn secure_erase() -> Self {
        Self::Ioctl(sys::BLKSECDISCARD as u32)
    }

    /// Whether `error` says that this storage can't do this call on this range. A range that is
    /// not of whole blocks is `EINVAL` on a block device.
    pub fn is_unsupported(error: &io::Error) -> bool {
        let errno = error.raw_os_error();
        matches!(errno, Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY | libc::EINVAL))
    }
}
