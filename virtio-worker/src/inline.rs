use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, PoisonError, TryLockError};

use crate::sync::Mutex;

/// Serves a queue also on the thread that passes the driver's notifications on.
pub trait ServeInline: Send + 'static {
    /// Serves what is there without blocking, as a request that comes alone, and enables notifications again. Called
    /// while the queue's thread sleeps with nothing to do. Must not block, nor take longer than the caller can be
    /// spared.
    fn serve_inline(&mut self) -> Inline;
}

/// What came of serving a queue inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {
    /// The queue is idle, and its notifications are enabled: its thread sleeps on.
    Done,
    /// The queue's thread is needed, and is woken.
    NeedsThread,
}

/// The place of a queue that two threads serve, one at a time: its own [`QueueThread`](crate::QueueThread), and the
/// one that [passes notifications on](crate::QueueThread::notify), which spares a request that comes alone the way
/// from thread to thread.
///
/// What serves the queue is a `T`. The queue's thread [puts](Self::put) it here, and has it but for the time between
/// two calls of [`with`](InlineOwner::with). The other thread never waits for it: if it can't have it at
/// once, it wakes the queue's thread.
pub struct InlineSlot<T>(Arc<Mutex<Option<T>>>);

/// The queue's thread's side of an [`InlineSlot`] with something in it.
///
/// Dropping it takes out what serves the queue, and drops that. So no other thread serves the queue, or has anything
/// of it, when its thread has ended.
pub struct InlineOwner<T>(Arc<Mutex<Option<T>>>);

/// The other side of an [`InlineSlot`]: see [`QueueThread::notify`](crate::QueueThread::notify).
pub struct InlineHandle(Arc<dyn TryServe>);

impl<T: ServeInline> InlineSlot<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// For whoever passes notifications on.
    pub fn handle(&self) -> InlineHandle {
        InlineHandle(Arc::clone(&self.0) as Arc<dyn TryServe>)
    }

    /// Has the queue served by `server` from now on.
    pub fn put(self, server: T) -> InlineOwner<T> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        InlineOwner(self.0)
    }
}

impl<T: ServeInline> Default for InlineSlot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> InlineOwner<T> {
    /// Serves the queue on its own thread. When `serve` returns, the other thread may serve it: so it looks for
    /// requests after it has enabled notifications, and before it returns. A wait with something in flight, or for
    /// a time, is best done in `serve`, which keeps the other thread out; all others after it.
    ///
    /// # Panics
    /// As the other thread has, when it served the queue.
    pub fn with<R>(&mut self, serve: impl FnOnce(&mut T) -> R) -> R {
        match self.0.lock().as_deref_mut() {
            Ok(Some(server)) => serve(server),
            _ => panic::resume_unwind(Box::new(())),
        }
    }

    /// Takes out what serves the queue. The other thread has nothing of it from now on.
    ///
    /// # Panics
    /// As [`with`](Self::with).
    pub fn end(self) -> T {
        match self.0.lock().map(|mut server| server.take()) {
            Ok(Some(server)) => server,
            _ => panic::resume_unwind(Box::new(())),
        }
    }
}

impl<T> Drop for InlineOwner<T> {
    fn drop(&mut self) {
        // The lock is not held while it is dropped.
        let server = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(server);
    }
}

impl InlineHandle {
    /// Serves the queue, if its thread does not have it.
    pub(crate) fn serve(&self) -> Inline {
        self.0.try_serve()
    }
}

trait TryServe: Send + Sync {
    fn try_serve(&self) -> Inline;
}

impl<T: ServeInline> TryServe for Mutex<Option<T>> {
    fn try_serve(&self) -> Inline {
        let mut server = match self.try_lock() {
            Ok(server) => server,
            // Its thread has it, or is to be told of a panic.
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => {
                return Inline::NeedsThread;
            }
        };
        // A panic leaves the lock poisoned: the queue's thread meets that, and ends as if the panic were its own.
        let serve = AssertUnwindSafe(move || match &mut *server {
            Some(server) => server.serve_inline(),
            None => Inline::NeedsThread,
        });
        panic::catch_unwind(serve).unwrap_or(Inline::NeedsThread)
    }
}

impl<T> fmt::Debug for InlineSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineSlot").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for InlineOwner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineOwner").finish_non_exhaustive()
    }
}

impl fmt::Debug for InlineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineHandle").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
