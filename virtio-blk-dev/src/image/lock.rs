use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Locks the whole of `file` for as long as its open file description lives: shared for a reader,
/// exclusive for a writer.
///
/// The lock is of the open file description (`F_OFD_SETLK`, fcntl(2)) and not of the process, so
/// two disks of one process keep each other out too, and closing some other descriptor of the
/// file doesn't release it. QEMU takes locks of the same kind, but on single bytes.
pub(super) fn lock(file: &File, exclusive: bool) -> io::Result<()> {
    let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    // SAFETY: `flock` is plain data, of which all-zero is a value: start and length 0 are the
    // whole file, and `l_pid` must be 0 for this kind of lock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    // SAFETY: the descriptor is open, and `lock` outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
