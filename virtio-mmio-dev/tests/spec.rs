//! One test per rule of virtio 1.2 that a virtio-mmio device or a split ring has to keep, named
//! after the rule and in the order of the specification's clauses; and one per known way of
//! getting them wrong.

mod common;

#[path = "spec/chains.rs"]
mod chains;
#[path = "spec/config_space.rs"]
mod config_space;
#[path = "spec/features.rs"]
mod features;
#[path = "spec/interrupts.rs"]
mod interrupts;
#[path = "spec/queue_registers.rs"]
mod queue_registers;
#[path = "spec/queues.rs"]
mod queues;
#[path = "spec/registers.rs"]
mod registers;
#[path = "spec/reset.rs"]
mod reset;
#[path = "spec/ring.rs"]
mod ring;
#[path = "spec/ring_guards.rs"]
mod ring_guards;
#[path = "spec/ring_notifications.rs"]
mod ring_notifications;
#[path = "spec/ring_setup.rs"]
mod ring_setup;
#[path = "spec/saved_state.rs"]
mod saved_state;
#[path = "spec/status.rs"]
mod status;

use common::{DATA, Desc, Ram, Ring, WRITE};
use virtio_mmio_dev::feature;

const V1: u64 = feature::VERSION_1;

/// Makes one writable buffer at descriptor `head` available.
fn offer(ring: &mut Ring<'_, Ram>, head: u16) {
    ring.desc(head, Desc(DATA, 8, WRITE, 0));
    ring.offer(head);
}
