//! The local side.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::call::Call;
use super::shared::Shared;
use super::state::{Local, errno};
use crate::readable::readable;
use crate::{DomId, EventChannel};

/// Xen `DOMID_FIRST_RESERVED` (`xen/include/public/xen.h`).
const DOMID_FIRST_RESERVED: DomId = 0x7ff0;

/// A descriptor of the fake device, made by [`FakeHub::open`](super::FakeHub::open). Dropping it closes its ports.
#[derive(Debug)]
pub struct FakeEvtchn {
    hub: Arc<Shared>,
    id: u64,
    readable: Arc<File>,
}

impl FakeEvtchn {
    pub(super) fn new(hub: Arc<Shared>) -> io::Result<Self> {
        let (id, readable) = hub.state().open()?;
        Ok(Self { hub, id, readable })
    }
}

impl EventChannel for FakeEvtchn {
    fn bind_interdomain(&self, remote_domain: DomId, remote_port: u32) -> io::Result<u32> {
        let mut state = self.hub.state();
        state.fault(Call::Bind)?;
        state.bind(self.id, (remote_domain, remote_port))
    }

    fn unbind(&self, port: u32) -> io::Result<()> {
        let mut state = self.hub.state();
        state.fault(Call::Unbind)?;
        state.owned(self.id, port)?;
        state.close_local(port);
        Ok(())
    }

    fn notify(&self, port: u32) -> io::Result<()> {
        let mut state = self.hub.state();
        state.fault(Call::Notify)?;
        let Local { peer, loopback, .. } = *state.owned(self.id, port)?;
        if let Some(other) = loopback {
            state.deliver(other);
        }
        if let Some(remote) = peer.and_then(|peer| state.remotes.get_mut(&peer)) {
            remote.notified = true;
            remote.notifications += 1;
            self.hub.notified.notify_all();
        }
        Ok(())
    }

    fn pending(&self, ports: &mut [u32]) -> io::Result<usize> {
        let mut state = self.hub.state();
        state.fault(Call::Pending)?;
        if ports.is_empty() {
            return Ok(0);
        }
        let handle = state.handle(self.id);
        if handle.overflow {
            return Err(errno(libc::EFBIG));
        }
        let taken = ports.len().min(handle.ring.len());
        if taken == 0 {
            return Err(errno(libc::EAGAIN));
        }
        for (slot, port) in ports.iter_mut().zip(handle.ring.drain(..taken)) {
            *slot = port;
        }
        handle.update_readable();
        Ok(taken)
    }

    fn wait(&self, ports: &mut [u32]) -> io::Result<usize> {
        loop {
            match self.pending(ports) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => return taken,
            }
            readable(self.as_fd(), -1)?;
        }
    }

    fn bind_loopback(&self) -> io::Result<(u32, u32)> {
        let mut state = self.hub.state();
        state.fault(Call::Loopback)?;
        state.bind_loopback(self.id)
    }

    fn unmask(&self, ports: &[u32]) -> io::Result<()> {
        let mut state = self.hub.state();
        state.fault(Call::Unmask)?;
        for &port in ports {
            state.unmask(self.id, port);
        }
        Ok(())
    }

    fn reset(&self) -> io::Result<()> {
        let mut state = self.hub.state();
        state.fault(Call::Reset)?;
        let handle = state.handle(self.id);
        handle.ring.clear();
        handle.overflow = false;
        handle.update_readable();
        Ok(())
    }

    fn restrict(&self, domid: DomId) -> io::Result<()> {
        let mut state = self.hub.state();
        state.fault(Call::Restrict)?;
        let handle = state.handle(self.id);
        if handle.restricted.is_some() {
            return Err(errno(libc::EACCES));
        }
        if domid == 0 || domid >= DOMID_FIRST_RESERVED {
            return Err(errno(libc::EINVAL));
        }
        handle.restricted = Some(domid);
        Ok(())
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Drop for FakeEvtchn {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        let ports: Vec<u32> = state
            .locals
            .iter()
            .filter(|(_, l)| l.owner == self.id)
            .map(|(port, _)| *port)
            .collect();
        for port in ports {
            state.close_local(port);
        }
        state.handles.remove(&self.id);
    }
}
