use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::sync::{AtomicBool, Ordering};

/// Lets one thread sleep until another wakes it by a [`Waker`].
///
/// A wake-up before the sleep ends that sleep at once. Wake-ups that the sleeping thread has not yet seen
/// are coalesced: only the first of them makes a system call. One thread sleeps at a time, which `&mut`
/// ensures.
///
/// A `Wake` takes two file descriptors, an eventfd and an epoll instance. Create it once per queue and pass
/// it to each [`QueueThread`](crate::QueueThread) that serves the queue: to start a queue then needs no file
/// descriptor, and can't fail for want of one.
pub struct Wake(Arc<Shared>);

/// Wakes the thread that sleeps on a [`Wake`]. Can be used from any thread.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

struct Shared {
    event: Event,
    /// There is a wake-up that the sleeping thread has not seen. Whoever sets this signals the event.
    pending: AtomicBool,
}

impl Wake {
    /// Creates one without a wake-up.
    ///
    /// # Errors
    /// There are no file descriptors left (EMFILE, ENFILE).
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared { event: Event::new()?, pending: AtomicBool::new(false) })))
    }

    /// A handle to wake by.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.0))
    }

    /// Watches `fd` edge-triggered (`EPOLLIN | EPOLLET`): each time that it becomes readable, or that more can
    /// be read, ends a sleep. The descriptor is not read.
    ///
    /// This suits an eventfd, such as the kick descriptor of a vhost-user frontend, and a descriptor from which
    /// the thread takes everything before it sleeps, such as that of an io_uring. Pass other descriptors to
    /// [`wait`](Self::wait).
    ///
    /// Watching a descriptor twice has no effect. It is watched until the `Wake` is dropped, or until the last
    /// duplicate of the descriptor is closed, those in other processes included.
    ///
    /// # Errors
    /// `fd` can't be waited for (EPERM: a regular file), or the user's limit of watched descriptors is
    /// reached (ENOSPC).
    pub fn watch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.event.watch(fd)
    }

    /// Sleeps until it is woken, a [watched](Self::watch) descriptor has an edge, `host` is readable, has hung up
    /// or has an error, or `timeout` is over. It may also return for no reason.
    ///
    /// `host` is level-triggered: while it is readable, this returns at once. A caller that can't read it now,
    /// for example for lack of a buffer, passes `None`. To wait for several descriptors, pass an epoll instance.
    ///
    /// Without `host` and `timeout` this is one system call, otherwise at most two.
    ///
    /// # Errors
    /// What poll(2) or epoll_wait(2) returned: ENOMEM. A signal (EINTR) is not an error.
    pub fn wait(
        &mut self,
        host: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let waited = self.0.event.wait(host, timeout);
        // After the wait, and before the caller looks for work: whoever finds the flag still set has made
        // its work visible to that look.
        self.0.pending.swap(false, Ordering::AcqRel);
        waited
    }

    /// A second handle, for the thread that sleeps while this one is kept.
    pub(crate) fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Waker {
    /// Ends the current sleep or the next. What this thread did before is visible to the woken thread.
    pub fn wake(&self) {
        if !self.0.pending.swap(true, Ordering::AcqRel) {
            self.0.event.signal();
        }
    }
}

/// Readable while there is a wake-up that has not been seen, so that it can be polled among other
/// descriptors. A [`wait`](Wake::wait) with a timeout of zero then takes the wake-up.
impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wake").field(&self.0.event).finish()
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waker").field(&self.0.event).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
