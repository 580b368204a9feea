//! No event is lost between a mask and the unmask after it, and no message is sent after the write that
//! masked it, on any schedule: the vector itself, on loom's lock and atomics.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p virtio-pci-dev --lib --release model`

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use virtio_dev::{Delivery, IrqLine};

use super::super::{Target, Vector};

/// A guest that handles each interrupt at once: it looks for what the device has done.
struct Guest {
    /// What the queues have published: the number of used entries.
    used: [AtomicUsize; 2],
    /// The most of each that a handler has found.
    found: [AtomicUsize; 2],
    raised: AtomicUsize,
    /// A write that masked the vector was answered.
    masked: AtomicBool,
}

impl Guest {
    fn new() -> Arc<Self> {
        let zeroes = || [AtomicUsize::new(0), AtomicUsize::new(0)];
        Arc::new(Self {
            used: zeroes(),
            found: zeroes(),
            raised: AtomicUsize::new(0),
            masked: AtomicBool::new(false),
        })
    }

    fn line(self: &Arc<Self>) -> Target {
        let guest = Arc::clone(self);
        let line = move || {
            assert!(!guest.masked.load(Ordering::Acquire), "sent after the mask");
            guest.raised.fetch_add(1, Ordering::Relaxed);
            for (used, found) in guest.used.iter().zip(&guest.found) {
                found.fetch_max(used.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        };
        Target::Line(Arc::new(line) as Arc<dyn IrqLine>)
    }

    /// A queue's worker: publishes, then notifies.
    fn publish(&self, queue: usize, vector: &Vector) -> Delivery {
        self.used[queue].fetch_add(1, Ordering::Relaxed);
        vector.send()
    }

    fn assert_found(&self, queues: usize) {
        for found in &self.found[..queues] {
            assert_eq!(found.load(Ordering::Relaxed), 1, "an interrupt is lost");
        }
    }
}

#[test]
fn an_event_while_the_driver_unmasks_is_sent_once() {
    loom::model(|| {
        let (guest, vector) = (Guest::new(), Arc::new(Vector::new(false)));
        let (its_guest, its_vector) = (Arc::clone(&guest), Arc::clone(&vector));
        let worker = thread::spawn(move || {
            let _ = its_guest.publish(0, &its_vector);
        });
        vector.set_target(guest.line());
        worker.join().unwrap();
        guest.assert_found(1);
        assert_eq!(guest.raised.load(Ordering::Relaxed), 1);
        assert!(!vector.is_pending());
    });
}

#[test]
fn no_event_is_lost_while_the_driver_moves_the_interrupt() {
    loom::model(|| {
        let (guest, vector) = (Guest::new(), Arc::new(Vector::new(false)));
        vector.set_target(guest.line());
        let workers = [0, 1].map(|queue| {
            let (guest, vector) = (Arc::clone(&guest), Arc::clone(&vector));
            thread::spawn(move || {
                let _ = guest.publish(queue, &vector);
            })
        });
        vector.set_target(Target::Masked);
        guest.masked.store(true, Ordering::Release);
        let line = guest.line();
        guest.masked.store(false, Ordering::Release);
        vector.set_target(line);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        guest.assert_found(2);
        assert!(!vector.is_pending());
    });
}

#[test]
fn an_event_that_finds_the_mask_is_pending_and_no_other_is() {
    loom::model(|| {
        let (guest, vector) = (Guest::new(), Arc::new(Vector::new(false)));
        vector.set_target(guest.line());
        let (its_guest, its_vector) = (Arc::clone(&guest), Arc::clone(&vector));
        let worker = thread::spawn(move || its_guest.publish(0, &its_vector));
        vector.set_target(Target::Masked);
        guest.masked.store(true, Ordering::Release);
        let delivery = worker.join().unwrap();
        let raised = guest.raised.load(Ordering::Relaxed);
        match delivery {
            Delivery::Sent => assert_eq!((raised, vector.is_pending()), (1, false)),
            _ => assert_eq!((raised, vector.is_pending()), (0, true)),
        }
    });
}
