//! Rate limits of a disk that are changed while a guest uses it.

mod common;

use std::{thread, time::Duration};

use common::{
    block::{BlockRequests, IN, OK},
    host::sector_pattern,
    one_disk::OneDisk,
};
use virtio_blk_dev::Rate;
use xen_virtio_backend::fake::{FakeDriver, Sharing, Watchdog};
use xen_virtio_blk::order::{Limit, LimitChange, Order};

/// The disk with this limit of bytes from now on.
fn limit(it: &mut OneDisk, bytes: Limit) {
    let change = LimitChange { bytes: Some(bytes), ops: None };
    it.host.order(&it.disk.clone(), Order::Limit(change)).unwrap();
}

/// Reads a sector. `meanwhile` is called when the guest waits for its data.
fn read(driver: &mut FakeDriver, sector: u64, meanwhile: impl FnOnce()) {
    let page = driver.filled(&[0; 512]);
    let data = Some((page.device, 512));
    thread::scope(|scope| {
        let request = scope.spawn(|| driver.request(IN, sector, data));
        thread::sleep(Duration::from_millis(50));
        meanwhile();
        assert_eq!(request.join().unwrap(), (OK, 513));
    });
    assert_eq!(driver.get(page.guest), sector_pattern(sector));
    driver.release(page);
}

#[test]
fn a_limit_is_set_and_lifted_while_a_disk_is_served_that_began_without_one() {
    let _watchdog = Watchdog::start();
    // One request of a sector at once, and the next one after nine minutes.
    let slow = Limit::To(Rate { per_second: 1, burst: 512 });
    let mut it = OneDisk::new(Sharing::Foreign);
    let mut driver = it.host.driver(&it.disk, 0);
    for sector in 0..3 {
        read(&mut driver, sector, || {});
    }
    limit(&mut it, slow);
    read(&mut driver, 3, || {});
    // It sleeps until the old limit allows it, unless it is woken.
    read(&mut driver, 4, || limit(&mut it, Limit::Unlimited));
    read(&mut driver, 5, || {});
}
