//! A device to drive, and a driver to drive it with: registers and one split ring.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test crate uses a part")]

mod driver;
mod recorder;
mod ring;
mod test_device;

use virtio_dev::{Interrupt, LiveQueue, QueueConfig, Status, feature};

pub use driver::{Driver, go_live, live_control};
pub use recorder::{Call, Recorder};
pub use ring::{DATA, Desc, INDIRECT, NEXT, RAM_SIZE, RING, Ram, Ring, RingAt, TABLES, WRITE, ram};
pub use test_device::TestDevice;

/// A live queue over `mem` of a live device.
pub fn live_queue<'a>(
    ring: &Ring<'a, Ram>,
    event_idx: bool,
) -> (LiveQueue<&'a Ram, &'a Ram>, Driver) {
    let driver = Driver::live(feature::VERSION_1);
    let queue = new_queue(&ring.config(event_idx), ring.mem, driver.interrupt());
    (queue, driver)
}

pub fn new_queue<'a>(
    config: &QueueConfig,
    mem: &'a Ram,
    interrupt: Interrupt,
) -> LiveQueue<&'a Ram, &'a Ram> {
    LiveQueue::new(config, &mem, mem, interrupt).unwrap()
}

pub fn needs_reset(driver: &Driver) -> bool {
    driver.control.status().contains(Status::DEVICE_NEEDS_RESET)
}
