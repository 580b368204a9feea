//! A function on a bus of its own, and what a driver does with it.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test crate uses a part")]

mod guest;
#[path = "../../../virtio-dev/tests/common/recorder.rs"]
mod recorder;
#[path = "../../../virtio-dev/tests/common/ring.rs"]
mod ring;
mod structures;
#[path = "../../../virtio-dev/tests/common/test_device.rs"]
mod test_device;

pub use guest::{BAR, DOORBELL, Guest, Message, Messages};
pub use recorder::{Call, Recorder};
pub use ring::{DATA, Desc, INDIRECT, NEXT, RAM_SIZE, RING, Ram, Ring, RingAt, TABLES, WRITE, ram};
pub use structures::{Structure, Structures, common};
pub use test_device::TestDevice;
