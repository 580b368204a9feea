//! Waiting for a descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether a read has something to give, or an error, by `timeout` in milliseconds; -1 is no end.
pub(crate) fn readable(fd: BorrowedFd<'_>, timeout: libc::c_int) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one descriptor's entry, which outlives the call.
    match unsafe { libc::poll(&raw mut poll, 1, timeout) } {
        -1 => Err(io::Error::last_os_error()),
        ready => Ok(ready > 0),
    }
}
