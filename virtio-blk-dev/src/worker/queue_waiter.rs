use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use virtio_dev::RingFault;

use crate::engine::EngineFault;
use crate::stats::HostError;

/// What [`Worker::serve`](crate::Worker::serve) needs from its thread: how to wait for work, when to
/// stop, and where to report errors.
pub trait QueueWaiter {
    /// Whether `serve` has to return.
    fn is_stopped(&self) -> bool;

    /// Blocks until the driver has notified the queue, `engine` is readable, or `timeout` has passed.
    /// Spurious wake-ups are allowed. A notification that arrived before the call must end the wait.
    ///
    /// # Errors
    /// Waiting failed: `serve` stops and returns the error.
    fn wait(&mut self, engine: Option<BorrowedFd<'_>>, timeout: Option<Duration>)
    -> io::Result<()>;

    /// The host failed a request, which the guest has got `VIRTIO_BLK_S_IOERR` for. Meant for a
    /// rate-limited log: a guest can cause many of these.
    fn on_host_error(&mut self, error: &HostError) {
        let _ = error;
    }

    /// A flush, or a write that had to be stable, has failed: data that the guest wrote may be lost, and
    /// every later flush of the disk fails until its image is opened anew. Called once for each disk, by
    /// the queue whose operation failed; log it without a rate limit.
    fn on_durability_lost(&mut self, error: &HostError) {
        let _ = error;
    }

    /// The driver's ring is malformed. The driver has been told that the device needs a reset, and the
    /// queue serves no further requests. Called once.
    fn on_broken(&mut self, fault: RingFault) {
        let _ = fault;
    }

    /// The engine has failed and falls back to a slower way; requests are still answered. Called once.
    fn on_engine_fault(&mut self, fault: &EngineFault) {
        let _ = fault;
    }
}
