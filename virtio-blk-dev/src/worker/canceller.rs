use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends a worker's long requests early, from any thread. To be used when the driver doesn't wait for
/// answers: the device or the queue is being reset, or the driver is gone.
///
/// After it no further piece of a list of ranges is started, and the [`drain`](crate::Worker::drain) that
/// follows answers such a request with an error. A queue that is only paused must be drained without it, as
/// its driver would see that error.
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// Cancels. This can't be undone.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
