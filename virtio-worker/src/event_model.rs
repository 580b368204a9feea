//! The kernel's side of a wake-up as loom sees it: an edge that is kept until it is taken. The kernel's lock
//! orders the write that a sleep ends by before the end of that sleep.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use loom::sync::{Condvar, Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct Event {
    edge: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { edge: Mutex::new(false), changed: Condvar::new() })
    }

    fn edge(&self) -> MutexGuard<'_, bool> {
        self.edge.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn signal(&self) {
        *self.edge() = true;
        self.changed.notify_one();
    }

    pub(crate) fn watch(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A host's descriptor is never ready here; any timeout is over at once.
    pub(crate) fn wait(
        &self,
        _: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let mut edge = self.edge();
        while timeout.is_none() && !*edge {
            edge = self.changed.wait(edge).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *edge = false;
        Ok(())
    }
}

/// Nobody polls a model.
impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        rustix::stdio::stdin()
    }
}
