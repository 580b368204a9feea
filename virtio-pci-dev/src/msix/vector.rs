//! One vector, as it is shared with whoever sends its message.

#[cfg(all(test, loom))]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use virtio_dev::{Delivery, IrqLine};

use crate::sync::{AtomicBool, RwLock};

/// What becomes of a vector's message.
pub(crate) enum Target {
    /// It is masked: it becomes pending.
    Masked,
    /// It is sent: this is raised.
    Line(Arc<dyn IrqLine>),
    /// It is sent, and nothing listens at its address.
    Nowhere,
}

/// A vector: what becomes of its message now, and whether one is pending.
///
/// A sender holds the lock shared while it raises the line or sets the pending bit; a change of the
/// target holds it alone. So a message is either sent before a mask is set, or finds it and is pending,
/// and an unmask that follows sends it: none is lost, and none is sent after the write that masked it was
/// answered. Senders of the queues that share a vector don't wait for each other.
pub(crate) struct Vector {
    target: RwLock<Target>,
    pending: AtomicBool,
}

impl Vector {
    pub(crate) fn new(pending: bool) -> Self {
        Self { target: RwLock::new(Target::Masked), pending: AtomicBool::new(pending) }
    }

    /// Sends the message, or makes it pending.
    #[inline]
    pub(crate) fn send(&self) -> Delivery {
        match &*self.target.read().unwrap_or_else(PoisonError::into_inner) {
            Target::Line(line) => {
                line.raise();
                Delivery::Sent
            }
            Target::Masked => {
                // Release: whoever reads the bit finds what was done before the event.
                self.pending.store(true, Ordering::Release);
                Delivery::Withheld
            }
            Target::Nowhere => Delivery::Withheld,
        }
    }

    /// Changes what becomes of the message. One that is pending is sent, if it can be now.
    pub(crate) fn set_target(&self, new: Target) {
        let mut target = self.target.write().unwrap_or_else(PoisonError::into_inner);
        *target = new;
        match &*target {
            Target::Masked => {}
            Target::Line(line) => {
                if self.pending.swap(false, Ordering::AcqRel) {
                    line.raise();
                }
            }
            Target::Nowhere => self.pending.store(false, Ordering::Release),
        }
    }

    /// The pending bit.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }
}
