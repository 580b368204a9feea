//! A device to drive, and a driver to drive it with: registers and one split ring.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test crate uses a part")]

mod effect;
#[path = "../../../virtio-dev/tests/common/recorder.rs"]
mod recorder;
#[path = "../../../virtio-dev/tests/common/ring.rs"]
mod ring;
#[path = "../../../virtio-dev/tests/common/test_device.rs"]
mod test_device;
mod window;

use virtio_dev::{Interrupt, LiveQueue, QueueConfig, Status};

pub use effect::Effect;
pub use recorder::{Call, Recorder};
pub use ring::{DATA, Desc, INDIRECT, NEXT, RAM_SIZE, RING, Ram, Ring, RingAt, TABLES, WRITE, ram};
pub use test_device::TestDevice;
pub use window::Window;

pub fn new_queue<'a>(
    config: &QueueConfig,
    mem: &'a Ram,
    interrupt: Interrupt,
) -> LiveQueue<&'a Ram, &'a Ram> {
    LiveQueue::new(config, &mem, mem, interrupt).unwrap()
}

pub fn needs_reset(window: &Window) -> bool {
    window.transport.status().contains(Status::DEVICE_NEEDS_RESET)
}
