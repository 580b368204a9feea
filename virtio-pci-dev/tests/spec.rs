//! One test per rule of virtio 1.2 that a virtio-pci device has to keep, and of PCI as far as drivers
//! depend on it, named after the rule and in the order of the specification's clauses.

mod common;

#[path = "spec/configuration_space.rs"]
mod configuration_space;
#[path = "spec/device_configuration.rs"]
mod device_configuration;
#[path = "spec/discovery.rs"]
mod discovery;
#[path = "spec/features.rs"]
mod features;
#[path = "spec/isr.rs"]
mod isr;
#[path = "spec/masking.rs"]
mod masking;
#[path = "spec/messages.rs"]
mod messages;
#[path = "spec/notifications.rs"]
mod notifications;
#[path = "spec/queues.rs"]
mod queues;
#[path = "spec/reset.rs"]
mod reset;
#[path = "spec/saved_state.rs"]
mod saved_state;
#[path = "spec/structures.rs"]
mod structures;
#[path = "spec/widths.rs"]
mod widths;
#[path = "spec/window.rs"]
mod window;

use virtio_dev::feature;

const V1: u64 = feature::VERSION_1;
