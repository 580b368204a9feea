//! The vectors of a function, as they are shared with the workers of its queues.

use std::sync::atomic::Ordering;

use virtio_dev::{Delivery, Messages};

use super::VectorState;
use super::vector::{Target, Vector};
use crate::sync::{AtomicBool, AtomicU16};

/// `VIRTIO_MSI_NO_VECTOR`: no vector is assigned to the event (virtio 1.2 §4.1.5.1.2).
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// The vectors of a function, and which event has which.
pub(crate) struct Vectors {
    /// MSI-X Enable, for who sends: without it there are no messages, and the ISR status tells.
    enabled: AtomicBool,
    vectors: Box<[Vector]>,
    /// The vector of configuration changes.
    config: AtomicU16,
    /// The vector of each queue.
    queues: Box<[AtomicU16]>,
}

impl Vectors {
    /// So many queues, without vectors, and these vectors, all of which are masked.
    pub(crate) fn new(queues: usize, vectors: &[VectorState]) -> Self {
        Self {
            enabled: AtomicBool::new(false),
            vectors: vectors.iter().map(|vector| Vector::new(vector.pending)).collect(),
            config: AtomicU16::new(NO_VECTOR),
            queues: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
        }
    }

    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Release);
    }

    /// Changes what becomes of a vector's message.
    pub(crate) fn set_target(&self, vector: u16, target: Target) {
        if let Some(vector) = self.vectors.get(usize::from(vector)) {
            vector.set_target(target);
        }
    }

    pub(crate) fn is_pending(&self, vector: u16) -> bool {
        self.vectors.get(usize::from(vector)).is_some_and(Vector::is_pending)
    }

    /// The vector of configuration changes.
    pub(crate) fn config_vector(&self) -> u16 {
        self.config.load(Ordering::Acquire)
    }

    /// The vector of a queue.
    pub(crate) fn queue_vector(&self, queue: u16) -> u16 {
        let queue = self.queues.get(usize::from(queue));
        queue.map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    /// Assigns a vector to configuration changes. One that is not there is none.
    pub(crate) fn assign_config(&self, vector: u16) {
        self.config.store(self.existing(vector), Ordering::Release);
    }

    /// Assigns a vector to a queue. One that is not there is none.
    pub(crate) fn assign_queue(&self, queue: u16, vector: u16) {
        if let Some(queue) = self.queues.get(usize::from(queue)) {
            queue.store(self.existing(vector), Ordering::Release);
        }
    }

    /// No event has a vector any more.
    pub(crate) fn unassign_all(&self) {
        for event in self.queues.iter().chain([&self.config]) {
            event.store(NO_VECTOR, Ordering::Release);
        }
    }

    fn existing(&self, vector: u16) -> u16 {
        if self.vectors.get(usize::from(vector)).is_some() { vector } else { NO_VECTOR }
    }

    fn send(&self, event: &AtomicU16) -> Delivery {
        if !self.enabled.load(Ordering::Acquire) {
            return Delivery::Disabled;
        }
        let vector = usize::from(event.load(Ordering::Acquire));
        self.vectors.get(vector).map_or(Delivery::Withheld, Vector::send)
    }
}

impl Messages for Vectors {
    fn used_buffer(&self, queue: u16) -> Delivery {
        let queue = self.queues.get(usize::from(queue));
        queue.map_or(Delivery::Withheld, |event| self.send(event))
    }

    fn config_change(&self) -> Delivery {
        self.send(&self.config)
    }
}
