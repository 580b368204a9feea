use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::{AtomicBool, Ordering};
use crate::wake::{Wake, Waker};

/// The thread's side of a [`QueueThread`](crate::QueueThread): it waits for notifications and for the stop.
#[derive(Debug)]
pub struct Waiter {
    wake: Wake,
    stop: Arc<AtomicBool>,
}

/// The side of whoever started the thread.
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

    /// Whether the thread was told to stop. Once true, this stays true, and [`wait`](Self::wait) returns at
    /// once.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sleeps as [`Wake::wait`] does, until the thread is [woken](crate::QueueThread::wake) or stopped, among
    /// others. Look for requests after each return; there may be none.
    ///
    /// # Errors
    /// As for [`Wake::wait`]. The queue can't be served any more.
    pub fn wait(
        &mut self,
        host: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if self.is_stopped() { Ok(()) } else { self.wake.wait(host, timeout) }
    }

    /// Watches a descriptor, as [`Wake::watch`] does.
    ///
    /// # Errors
    /// As for [`Wake::watch`].
    pub fn watch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.wake.watch(fd)
    }
}

impl Stop {
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    pub(crate) fn is_given(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sets the flag before it wakes the thread, which therefore sees it.
    pub(crate) fn give(&self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }
}

#[cfg(all(test, loom))]
mod tests;
