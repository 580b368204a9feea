//! Whether a queue is in service.

/// Whether a queue is in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Stopped,
    Started,
    /// [`Queues::stop`](crate::Queues::stop) was called, and is not done.
    Draining,
}
