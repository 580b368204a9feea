//! What the handles of a guest share.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xen_evtchn::fake::FakeHub;
use xen_foreignmem::DomId;
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable, FakeRam};

use super::state::State;

/// What the handles of a guest share.
pub(super) struct Machine {
    pub(super) domid: DomId,
    pub(super) vcpus: u32,
    pub(super) vcpu_timeout: Duration,
    pub(super) hub: FakeHub,
    pub(super) ram: Arc<FakeRam>,
    pub(super) foreign: Arc<FakeForeignMemory>,
    pub(super) grants: Arc<FakeGrantTable>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

impl Machine {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("domid", &self.domid).finish_non_exhaustive()
    }
}
