use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Waits until `fd` is readable.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one pollfd, which outlives the call, of an open descriptor.
        if unsafe { libc::poll(&raw mut poll, 1, -1) } != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
