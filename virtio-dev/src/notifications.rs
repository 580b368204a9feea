//! How a transport notifies its driver.

use std::sync::Arc;

/// An interrupt line: edge-triggered, or a level the guest's controller latches. Also what a message
/// of a device stands for, if that is raised as a line is.
pub trait IrqLine: Send + Sync {
    /// Raises the line once.
    fn raise(&self);
}

impl<F: Fn() + Send + Sync> IrqLine for F {
    fn raise(&self) {
        self();
    }
}

/// How the transport notifies the driver (virtio 1.2 §2.3).
#[non_exhaustive]
pub enum Notifications {
    /// One line for all, with an interrupt status that the driver reads and acknowledges
    /// (virtio-mmio, §4.2.3.4): the line is raised only if the event's bit was clear.
    Line(Box<dyn IrqLine>),
    /// A message a queue, and one for configuration changes, which nobody acknowledges (virtio-pci
    /// with MSI-X, §4.1.5.1).
    Messages(Arc<dyn Messages>),
}

/// The messages of one device. They are sent from every thread that serves one of its queues.
pub trait Messages: Send + Sync {
    /// Used buffers were published in this queue, and its driver wants to know.
    fn used_buffer(&self, queue: u16) -> Delivery;

    /// The configuration space changed, or the device needs a reset.
    fn config_change(&self) -> Delivery;
}

/// What became of a message.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It was sent.
    Sent,
    /// It was not: it is masked, and pending, or the driver has assigned no message to the event.
    Withheld,
    /// The driver has not enabled messages: the interrupt status says what happened.
    Disabled,
}
