//! What a guest's thread sleeps on.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use virtio_worker::Wake;

use crate::{backend::Device, node::DeviceId};

/// Sleeps until there is a trap at `server`, `wake` is woken, one of `devices` has what it waits for, or `timeout` is
/// over. Gives which devices these are, each maybe several times.
pub(super) fn sleep<'a, D: Device + 'a>(
    wake: &mut Wake,
    server: BorrowedFd<'_>,
    devices: impl Iterator<Item = &'a D>,
    timeout: Option<Duration>,
) -> io::Result<Vec<DeviceId>> {
    let mut theirs = Vec::new();
    devices.for_each(|device| device.wait_for(&mut theirs));
    if theirs.is_empty() {
        // As always with devices that have threads of their own.
        wake.wait(Some(server), timeout)?;
        return Ok(Vec::new());
    }
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let all = theirs.iter().map(|(_, fd)| *fd).chain([server, wake.as_fd()]);
    let mut fds: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let ready = theirs.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
    let ready = ready.map(|((id, _), _)| *id).collect();
    drop(fds);
    // Takes the wake-up, if that was it.
    wake.wait(None, Some(Duration::ZERO))?;
    Ok(ready)
}
