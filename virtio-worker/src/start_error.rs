use std::error::Error;
use std::fmt;
use std::io;

use crate::wake::Wake;

/// Why a queue's thread can't be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "no thread {name:?} can be started for the queue: raise the limit of tasks (TasksMax= of the systemd unit, `ulimit -u`)"
)]
#[non_exhaustive]
pub struct SpawnError {
    /// The thread's name.
    pub name: String,
    /// What pthread_create(3) returned: EAGAIN if the limit of threads is reached or memory is short.
    pub source: io::Error,
}

/// A queue's thread can't be started. The queue is dropped; the engine and the `Wake` are in here.
#[non_exhaustive]
pub struct StartError<E> {
    /// Why.
    pub reason: SpawnError,
    /// The `Wake` from the [`ThreadSpec`](crate::ThreadSpec).
    pub wake: Wake,
    /// The engine.
    pub engine: E,
}

impl<E> fmt::Debug for StartError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StartError").field(&self.reason).finish()
    }
}

/// As `reason`.
impl<E> fmt::Display for StartError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<E> Error for StartError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.source()
    }
}
