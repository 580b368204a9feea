//! What serves a device's queues.

use crate::{Interrupt, QueueConfig};

/// What serves a device's queues: a transport calls it for each of the driver's writes that concerns
/// them, so that nothing which follows from a write is left to its caller.
///
/// Between a [`start`](Self::start) and a [`stop`](Self::stop) a queue is in service. Each start is
/// followed by at most one stop, and the next start of that queue comes only after the stop is done.
/// `D` is the device.
pub trait Queues<D> {
    /// Takes a queue into service: it is ready, and the driver has set `DRIVER_OK`. Make a
    /// [`LiveQueue`](crate::LiveQueue) of `config` with `interrupt`, and treat it as notified, as a
    /// notification may have come before.
    ///
    /// A queue that can't be served sets `DEVICE_NEEDS_RESET`, as
    /// [`LiveQueue::new`](crate::LiveQueue::new) does, or by
    /// [`Interrupt::needs_reset`]. It is stopped like any other.
    fn start(&mut self, device: &D, config: &QueueConfig, interrupt: Interrupt);

    /// The queue has new available buffers (an available buffer notification, virtio 1.2 §2.9).
    ///
    /// The transport's caller calls this, after it answered a write that came to
    /// [`WriteOutcome::Notify`](crate::WriteOutcome::Notify).
    fn notify(&mut self, queue: u16);

    /// Stops a queue: the driver resets the device or the queue, wrote 0 to its `QueueReady`, or
    /// gave the device up. [`Stop::Done`] means that the device does not access the driver's memory
    /// for this queue any more: its [`LiveQueue`](crate::LiveQueue) is dropped, and no request is in
    /// flight.
    ///
    /// A queue whose requests wait for something, as for storage, need not be waited for: with
    /// [`Stop::Draining`] the write stays pending until the owner of the transport calls
    /// [`ControlPlane::queue_stopped`](crate::ControlPlane::queue_stopped).
    fn stop(&mut self, queue: u16) -> Stop;

    /// The driver has set `DRIVER_OK`, with these features. The ready queues are started after this.
    fn driver_ok(&mut self, features: u64) {
        let _ = features;
    }

    /// The driver wrote a field of the configuration space that it may write.
    fn config_written(&mut self) {}

    /// The driver has set `FAILED`. All queues are stopped after this, and none is started nor any
    /// interrupt raised before the driver resets the device.
    fn failed(&mut self) {}
}

/// How far the stop of a queue has come.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The queue has stopped.
    Done,
    /// Requests are in flight, and
    /// [`ControlPlane::queue_stopped`](crate::ControlPlane::queue_stopped) follows.
    Draining,
}
