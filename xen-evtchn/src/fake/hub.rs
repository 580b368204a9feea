//! The hypervisor and the guests.

use std::fmt;
use std::io;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::call::Call;
use super::handle::FakeEvtchn;
use super::shared::Shared;
use super::state::{Life, State, errno};
use crate::DomId;

/// The hypervisor's event channels: what the guests do, and what a test wants to know. Cheap to clone;
/// clones are the same hub.
#[derive(Clone, Default)]
pub struct FakeHub {
    shared: Arc<Shared>,
}

impl FakeHub {
    /// A hypervisor with no domain but the local one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the local domain's device.
    ///
    /// # Errors
    ///
    /// EMFILE, ENFILE: there are no descriptors left, of this process or of the system.
    pub fn open(&self) -> io::Result<FakeEvtchn> {
        FakeEvtchn::new(Arc::clone(&self.shared))
    }

    /// Makes a domain known. Binding a port of an unknown one fails with ESRCH.
    pub fn create_domain(&self, domid: DomId) {
        self.state().domains.insert(domid, Life::Alive);
    }

    /// Closes every port of a domain and forgets it.
    pub fn destroy_domain(&self, domid: DomId) {
        self.kill_domain(domid, || false);
    }

    /// Closes every port of a domain. As long as `is_held` says that somebody holds pages of it, Xen knows the domain as
    /// a dying one, and binding a port of it fails with EINVAL; then with ESRCH.
    pub fn kill_domain(&self, domid: DomId, is_held: impl Fn() -> bool + Send + 'static) {
        let mut state = self.state();
        let ports: Vec<_> =
            state.remotes.range((domid, 0)..=(domid, u32::MAX)).map(|(port, _)| *port).collect();
        for port in ports {
            state.close_remote(port);
        }
        state.domains.insert(domid, Life::Dying(Box::new(is_held)));
    }

    /// Domain `domid` (created if need be) offers a port to the local domain; returns its number there.
    ///
    /// # Panics
    ///
    /// When the domain was killed: a dying domain gets no ports (EINVAL in Xen's `get_free_port`).
    pub fn alloc_unbound(&self, domid: DomId) -> u32 {
        self.state().alloc_unbound(domid)
    }

    /// The guest (or Xen for it) raises its port. Nothing happens while the port is unbound.
    ///
    /// # Errors
    ///
    /// EINVAL: the domain has no such port.
    pub fn raise(&self, domid: DomId, port: u32) -> io::Result<()> {
        let mut state = self.state();
        let remote = state.remotes.get(&(domid, port)).ok_or_else(|| errno(libc::EINVAL))?;
        if let Some(local) = remote.peer {
            state.deliver(local);
        }
        Ok(())
    }

    /// The guest closes its port. A local port bound to it stays, with nobody at the other end.
    ///
    /// # Errors
    ///
    /// EINVAL: the domain has no such port.
    pub fn close(&self, domid: DomId, port: u32) -> io::Result<()> {
        let mut state = self.state();
        if !state.remotes.contains_key(&(domid, port)) {
            return Err(errno(libc::EINVAL));
        }
        state.close_remote((domid, port));
        Ok(())
    }

    /// The local port bound to a guest's port, if there is one.
    pub fn bound_to(&self, domid: DomId, port: u32) -> Option<u32> {
        self.state().remotes.get(&(domid, port))?.peer
    }

    /// Every local port that is bound, in order. Empty when nothing leaked.
    pub fn local_ports(&self) -> Vec<u32> {
        self.state().locals.keys().copied().collect()
    }

    /// How often a guest's port was notified in all; 0 for a port that does not exist.
    pub fn notifications(&self, domid: DomId, port: u32) -> u64 {
        self.state().remotes.get(&(domid, port)).map_or(0, |remote| remote.notifications)
    }

    /// Takes the event of a guest's port: whether it was notified since it was last taken.
    pub fn take_notified(&self, domid: DomId, port: u32) -> bool {
        take(&mut self.state(), domid, port)
    }

    /// Waits until a guest's port is notified and takes the event; false when `timeout` passes first.
    pub fn wait_notified(&self, domid: DomId, port: u32, timeout: Duration) -> bool {
        let state = self.state();
        let mut taken = false;
        let wait = self.shared.notified.wait_timeout_while(state, timeout, |state| {
            taken = take(state, domid, port);
            !taken
        });
        drop(wait);
        taken
    }

    /// The next `times` calls of kind `call`, on any descriptor, fail with `errno` and do nothing.
    pub fn fail_next(&self, call: Call, times: u32, errno: i32) {
        if times > 0 {
            self.state().faults.push((call, times, errno));
        }
    }

    /// Overflows the ring of every open descriptor: EFBIG from `pending` until `reset`.
    pub fn overflow(&self) {
        for handle in self.state().handles.values_mut() {
            handle.overflow = true;
            handle.update_readable();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

fn take(state: &mut State, domid: DomId, port: u32) -> bool {
    state.remotes.get_mut(&(domid, port)).is_some_and(|remote| std::mem::take(&mut remote.notified))
}

impl fmt::Debug for FakeHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}
