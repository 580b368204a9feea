//! Waiting for the other end of a line, for those who have nothing else to do.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};
use serde::de::DeserializeOwned;

use super::line::{Line, LineError};

/// Waits for the next message, and the files that came with it.
///
/// # Errors
/// The line is of no more use, or nothing came within `patience` ([`io::ErrorKind::TimedOut`]).
pub(crate) fn await_message<T: DeserializeOwned>(
    line: &mut Line,
    patience: Duration,
) -> Result<(T, Vec<OwnedFd>), LineError> {
    let begin = Instant::now();
    loop {
        match line.receive()? {
            Some(received) => return Ok(received),
            None => {
                await_ready(line.as_fd(), PollFlags::IN, patience.saturating_sub(begin.elapsed()))?
            }
        }
    }
}

/// Sends what is to be sent.
///
/// # Errors
/// The line is of no more use, or the other end didn't take all within `patience`.
pub(crate) fn await_flushed(line: &mut Line, patience: Duration) -> Result<(), LineError> {
    let begin = Instant::now();
    loop {
        line.flush()?;
        if line.is_flushed() {
            return Ok(());
        }
        await_ready(line.as_fd(), PollFlags::OUT, patience.saturating_sub(begin.elapsed()))?;
    }
}

/// Waits for a descriptor.
///
/// # Errors
/// It isn't ready within `patience`, or can't be waited for.
pub(crate) fn await_ready(
    fd: BorrowedFd<'_>,
    what: PollFlags,
    patience: Duration,
) -> Result<(), LineError> {
    let timeout = Timespec {
        tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut fds = [PollFd::from_borrowed_fd(fd, what)];
    match retry_on_intr(|| poll(&mut fds, Some(&timeout)))? {
        0 => Err(LineError::Io(io::ErrorKind::TimedOut.into())),
        _ => Ok(()),
    }
}
