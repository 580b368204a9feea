use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends a worker's long requests early, from any thread, when the driver waits for no answers: the
/// device or the queue is being reset, or the driver is gone.
///
/// Then no further piece of a list of ranges is begun, and such a request is answered with an error
/// by the [`drain`](crate::Worker::drain) that follows. A queue that only pauses is drained without: its
/// driver would see that error.
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// Has the worker begin no further piece. This can't be taken back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether that was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
