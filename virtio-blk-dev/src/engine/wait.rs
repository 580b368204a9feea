use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Waits until `fd` is readable, or `timeout` is over: whether it is readable.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        let left = match end {
            // Rounded up: a wait that ends too early would be repeated.
            Some(end) => end
                .saturating_duration_since(Instant::now())
                .as_micros()
                .div_ceil(1000)
                .try_into()
                .unwrap_or(libc::c_int::MAX),
            None => -1,
        };
        // SAFETY: one pollfd, which outlives the call, of an open descriptor.
        match unsafe { libc::poll(&raw mut poll, 1, left) } {
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            0 => return Ok(false),
            _ if poll.revents & libc::POLLIN != 0 => return Ok(true),
            // It will never be readable.
            _ => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}
