use std::time::Duration;

/// Why [`Worker::work`](crate::Worker::work) returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pause {
    /// It was told to stop.
    Stopped,
    /// There is nothing to do until the driver notifies the queue, for which notifications are enabled. Another thread
    /// [may serve it](crate::Worker::serve_inline) then.
    Idle,
    /// The engine [has something in flight](crate::Worker::engine_in_flight), a rate limit delays a request for this
    /// time, or both. No other thread may serve the queue meanwhile.
    Waits(Option<Duration>),
}
