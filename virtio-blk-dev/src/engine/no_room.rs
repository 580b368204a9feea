use std::io;

/// Whether an error says that there was no room for a write's data: the file system (`ENOSPC`) or the
/// quota (`EDQUOT`) is exhausted, or the file would become too large (`EFBIG`).
///
/// From write(2) this means that the kernel took none of the data; data written before is not affected.
/// From fsync(2), or the sync that is part of an `RWF_DSYNC` write, it means that data which the kernel had
/// taken could not be stored, as on thin volumes and file systems that allocate on write-back. That is a
/// loss of data like any other write-back error.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}
