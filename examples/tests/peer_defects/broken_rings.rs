//! Rings that break the rules.

use xen_virtio_backend::fake::{
    DeviceConfig, FakeDriver, INDIRECT, NEXT, Sharing, WRITE, Watchdog, descriptor, until,
};

use crate::{FEATURES, assert_serves, common::one_disk::OneDisk, start};

/// Breaks the ring by `break_it`; the device must say so, with an interrupt, do nothing more, and work
/// again after a reset. The disk beside it works all the time.
#[track_caller]
fn broken_ring_asks_for_a_reset(break_it: impl FnOnce(&mut FakeDriver)) {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let beside = DeviceConfig::disk(1, 1, it.host.image("b.img", 64 * 512));
    it.host.serve(&beside);
    let mut neighbour = FakeDriver::start(it.host.window(&beside), &it.kernel, FEATURES);
    let mut driver = start(&it);
    break_it(&mut driver);
    driver.kick();
    driver.wait_needs_reset();
    until("the interrupt", || it.interrupts() > 0);
    assert_eq!(driver.window().ack_interrupt() & 2, 2, "a configuration change");
    assert!(!driver.is_answered());
    driver.kick();
    assert_serves(&mut neighbour);
    assert_serves(&mut start(&it));
}

#[test]
fn a_descriptor_loop_overflows_nothing() {
    broken_ring_asks_for_a_reset(|driver| {
        let page = driver.buffer(4096);
        driver.describe(0, page.device, 16, NEXT, 1);
        driver.describe(1, page.device, 16, NEXT, 0);
        driver.offer(0);
    });
}

#[test]
fn a_malformed_chain_is_not_dropped_silently() {
    // The next descriptor is none of the queue's.
    broken_ring_asks_for_a_reset(|driver| {
        let page = driver.buffer(4096);
        driver.describe(0, page.device, 16, NEXT, 16);
        driver.offer(0);
    });
    // A head that is none.
    broken_ring_asks_for_a_reset(|driver| driver.offer(16));
    // What may be written comes before what may be read.
    broken_ring_asks_for_a_reset(|driver| {
        let page = driver.buffer(4096);
        driver.chain(0, &[(page.device, 1, WRITE), (page.device, 16, 0)]);
        driver.offer(0);
    });
}

#[test]
fn an_available_index_that_jumps_is_not_followed() {
    broken_ring_asks_for_a_reset(|driver| driver.set_avail_idx(17));
}

#[test]
fn an_indirect_table_in_an_indirect_table_is_not_followed() {
    broken_ring_asks_for_a_reset(|driver| {
        let page = driver.buffer(4096);
        driver.put(page.guest, &descriptor(page.device, 16, INDIRECT, 0));
        driver.chain(0, &[(page.device, 16, INDIRECT)]);
        driver.offer(0);
    });
}
