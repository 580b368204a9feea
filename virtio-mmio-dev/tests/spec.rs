//! One test per rule of virtio 1.2 that a virtio-mmio device has to keep, named
//! after the rule and in the order of the specification's clauses; and one per known way of
//! getting them wrong.

mod common;

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
#[path = "spec/saved_state.rs"]
mod saved_state;
#[path = "spec/status.rs"]
mod status;

use virtio_dev::feature;

const V1: u64 = feature::VERSION_1;
