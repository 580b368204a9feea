//! One test per rule of virtio 1.2 that a virtio-mmio device or a split ring has to keep, named
//! after the rule and in the order of the specification's clauses; and one per known way of
//! getting them wrong.

mod common;

#[path = "spec/chains.rs"]
mod chains;
#[path = "spec/negotiation.rs"]
mod negotiation;
#[path = "spec/queues.rs"]
mod queues;
#[path = "spec/registers.rs"]
mod registers;
#[path = "spec/ring.rs"]
mod ring;
