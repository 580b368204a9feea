//! What a guest's thread sleeps on.

use std::{io, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use xen_evtchn::EventChannel;
use xen_foreignmem::ForeignMemory;
use xen_ioreq::{DeviceModel, IoreqServer};

use super::wake::GuestWake;
use crate::{backend::Device, node::DeviceId};

/// Sleeps until there is a trap at `server`, `wake` is woken, one of `devices` has what it waits for, or `timeout` is
/// over. Gives which devices these are, each maybe several times.
pub(super) fn sleep<'a, M: DeviceModel, F: ForeignMemory, E: EventChannel, D: Device + 'a>(
    wake: &mut GuestWake,
    server: &mut IoreqServer<M, F, E>,
    devices: impl Iterator<Item = &'a D>,
    timeout: Option<Duration>,
) -> io::Result<Vec<DeviceId>> {
    let mut theirs = Vec::new();
    devices.for_each(|device| device.wait_for(&mut theirs));
    if theirs.is_empty() && timeout.is_none() && wake.has_bell() {
        // As always with devices that have threads of their own.
        server.wait();
        wake.take()?;
        return Ok(Vec::new());
    }
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let all = theirs.iter().map(|(_, fd)| *fd).chain([server.as_fd()]).chain(wake.fd());
    let mut fds: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let ready = theirs.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
    let ready = ready.map(|((id, _), _)| *id).collect();
    drop(fds);
    wake.take()?;
    Ok(ready)
}
