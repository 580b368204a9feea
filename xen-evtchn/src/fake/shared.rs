//! What a hub and its descriptors share.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::state::State;

#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// A guest's port was notified.
    pub(super) notified: Condvar,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeHub").finish_non_exhaustive()
    }
}
