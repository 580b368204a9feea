use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::{AtomicBool, Ordering};
use crate::wake::{Wake, Waker};

/// By what a queue's thread hears of notifications, and of its end.
#[derive(Debug)]
pub struct Waiter {
    wake: Wake,
    stop: Arc<AtomicBool>,
}

/// The other end.
#[derive(Debug)]
pub(crate) struct Stop {
    waker: Waker,
    stop: Arc<AtomicBool>,
}

impl Waiter {
    pub(crate) fn new(wake: Wake) -> (Self, Stop) {
        let (waker, stop) = (wake.waker(), Arc::new(AtomicBool::new(false)));
        (Self { wake, stop: Arc::clone(&stop) }, Stop { waker, stop })
    }

    /// The thread is to end: it gives its queue up, and returns. This stays so, and ends every sleep
    /// that was begun before.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sleeps as [`Wake::wait`] has it: until the thread is [woken](crate::QueueThread::wake) or stopped,
    /// among others. Call it when the queue was looked at and nothing was found, and look again
    /// afterwards.
    ///
    /// # Errors
    /// As of [`Wake::wait`]: the queue can't be served any more.
    pub fn wait(
        &mut self,
        host: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if self.is_stopped() { Ok(()) } else { self.wake.wait(host, timeout) }
    }

    /// Has the edges of `fd` end a sleep, as [`Wake::watch`] has it.
    ///
    /// # Errors
    /// As of [`Wake::watch`].
    pub fn watch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.wake.watch(fd)
    }
}

impl Stop {
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Before the wake-up, so that whoever is woken sees it.
    pub(crate) fn give(&self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }
}

#[cfg(all(test, loom))]
mod tests;
