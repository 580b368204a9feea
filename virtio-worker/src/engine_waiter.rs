use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::waiter::Waiter;

/// Waits as [`Waiter`] does, and for an engine's completions.
///
/// The engine's descriptor, such as that of an io_uring, is [watched](Waiter::watch) where that is possible, so that
/// a sleep is one system call. The thread takes all completions before it sleeps.
#[derive(Debug)]
pub struct EngineWaiter<'a> {
    waiter: &'a mut Waiter,
    watched: bool,
}

impl<'a> EngineWaiter<'a> {
    /// For an engine with this descriptor; `None` if it completes everything synchronously.
    pub fn new(waiter: &'a mut Waiter, engine: Option<BorrowedFd<'_>>) -> Self {
        // If that fails, each sleep polls the descriptor instead.
        let watched = engine.is_some_and(|engine| waiter.watch(engine).is_ok());
        Self { waiter, watched }
    }

    /// As [`Waiter::is_stopped`].
    pub fn is_stopped(&self) -> bool {
        self.waiter.is_stopped()
    }

    /// Sleeps as [`Waiter::wait`] does, until `engine` has completions, among others. It is the descriptor that
    /// [`new`](Self::new) had, or `None` while the engine has nothing in flight.
    ///
    /// # Errors
    /// As for [`Wake::wait`](crate::Wake::wait).
    pub fn wait(
        &mut self,
        engine: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.waiter.wait(engine.filter(|_| !self.watched), timeout)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
