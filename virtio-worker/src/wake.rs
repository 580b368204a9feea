use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::sync::{AtomicBool, Ordering};

/// What a thread sleeps on until another wakes it, by a [`Waker`].
///
/// A wake-up that comes before the sleep ends that sleep at once. Wake-ups that come before the sleeper
/// has looked count as one, and cost one system call together. There is one sleeper at a time, which
/// `&mut` holds.
///
/// It takes two file descriptors, an eventfd and an epoll instance. Made once for a queue, and lent to
/// each [`QueueThread`](crate::QueueThread) that serves it, it can't be wanting when the guest starts its
/// queue anew.
pub struct Wake(Arc<Shared>);

/// Wakes whoever sleeps on a [`Wake`], from any thread.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

struct Shared {
    event: Event,
    /// A wake-up that the sleeper has not seen. Whoever sets it signals the event.
    pending: AtomicBool,
}

impl Wake {
    /// Nobody has woken its sleeper yet.
    ///
    /// # Errors
    /// There are no file descriptors left (EMFILE, ENFILE).
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared { event: Event::new()?, pending: AtomicBool::new(false) })))
    }

    /// What wakes the sleeper.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.0))
    }

    /// Has each *edge* of `fd` end a sleep, too: that it becomes readable, or more readable. It is not
    /// read. So this is for an eventfd that nobody has to read, as the kick descriptor of a vhost-user
    /// frontend, and for a descriptor of which the thread takes everything before it sleeps, as that of
    /// an io_uring. Of others pass those that are to be waited for to each [`wait`](Self::wait).
    ///
    /// To watch a descriptor twice is to watch it once. It is watched until its last duplicate is closed,
    /// those of other processes included, or this is dropped.
    ///
    /// # Errors
    /// `fd` can't be waited for (EPERM: a regular file), or the user's limit of watched descriptors is
    /// reached (ENOSPC).
    pub fn watch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.event.watch(fd)
    }

    /// Sleeps until woken, a [watched](Self::watch) descriptor has an edge, `host` is readable, has hung
    /// up or has an error, or `timeout` is over; or for no reason at all.
    ///
    /// `host` is looked at as it is: while it is readable, no sleep ends other than at once. A caller that
    /// can't take anything from it now leaves it out. Who waits for several passes an epoll instance.
    ///
    /// It is one system call without `host` and `timeout`, and at most two with either.
    ///
    /// # Errors
    /// What poll(2) or epoll_wait(2) gave: the kernel is out of memory. A signal is no error.
    pub fn wait(
        &mut self,
        host: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let waited = self.0.event.wait(host, timeout);
        // After the event, and before the caller looks: who finds it set is heard by that look.
        self.0.pending.swap(false, Ordering::AcqRel);
        waited
    }

    /// The same, to sleep on elsewhere: the thread that a queue is lent to, while its starter keeps this.
    pub(crate) fn lend(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Waker {
    /// Wakes the sleeper, now or at its next sleep. What was done before is visible to it then.
    pub fn wake(&self) {
        if !self.0.pending.swap(true, Ordering::AcqRel) {
            self.0.event.signal();
        }
    }
}

/// Readable while a wake-up waits for the sleeper. For who sleeps on several things at once; a
/// [`wait`](Wake::wait) without any time then takes the wake-up.
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
