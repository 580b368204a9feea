//! One test per rule of virtio 1.2 that the device side of a split ring and its notifications have to keep, named
//! after the rule and in the order of the specification's clauses; and one per known way of
//! getting them wrong.

mod common;

#[path = "spec/chains.rs"]
mod chains;
#[path = "spec/messages.rs"]
mod messages;
#[path = "spec/ring.rs"]
mod ring;
#[path = "spec/ring_guards.rs"]
mod ring_guards;
#[path = "spec/ring_notifications.rs"]
mod ring_notifications;
#[path = "spec/ring_setup.rs"]
mod ring_setup;

use common::{DATA, Desc, Ram, Ring, WRITE};

/// Makes one writable buffer at descriptor `head` available.
fn offer(ring: &mut Ring<'_, Ram>, head: u16) {
    ring.desc(head, Desc(DATA, 8, WRITE, 0));
    ring.offer(head);
}
