//! Notifications of the driver.

use crate::Interrupt;

/// How a [`LiveQueue`](crate::LiveQueue) notifies its driver, over whichever transport.
///
/// [`Interrupt`] is that of a transport here. A vhost-user backend, whose frontend keeps the registers, signals
/// the queue's call descriptor instead.
pub trait QueueEvents: Send {
    /// Used buffers were published, and the driver asked to be notified.
    fn used_buffer(&self);

    /// The queue can't go on: the driver broke its rules (`DEVICE_NEEDS_RESET`, virtio 1.2 §2.1.2).
    fn needs_reset(&self);
}

impl QueueEvents for Interrupt {
    fn used_buffer(&self) {
        Interrupt::used_buffer(self);
    }

    fn needs_reset(&self) {
        Interrupt::needs_reset(self);
    }
}
