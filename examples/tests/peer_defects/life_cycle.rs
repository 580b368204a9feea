//! From one driver of a device to the next, and several devices at once.

use std::thread;

use xen_virtio_backend::fake::{
    DeviceConfig, FakeDriver, GuestKernel, Sharing, WRITE, Watchdog, reg, until,
};

use crate::{
    FEATURES, assert_serves,
    common::{
        block::{BlockRequests, IN},
        host::{Host, sector_pattern},
        one_disk::OneDisk,
        virtio_driver::probe,
    },
    start,
};

#[test]
fn a_reset_is_done_when_it_is_answered() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    for _ in 0..20 {
        let mut driver = start(&it);
        // Requests in flight while the guest changes its mind.
        let page = driver.buffer(4096);
        let status = driver.buffer(1);
        for head in [0, 4, 8] {
            let header = driver.header(IN, 0);
            let chain =
                [(header.device, 16, 0), (page.device, 4096, WRITE), (status.device, 1, WRITE)];
            driver.chain(head, &chain);
            driver.offer(head);
        }
        driver.window().write(reg::STATUS, 0);
        assert_eq!(driver.window().read(reg::STATUS), 0);
        assert_eq!(driver.window().read(reg::INTERRUPT_STATUS), 0);
        assert_eq!(driver.window().read(reg::QUEUE_READY), 0);
        // The memory is the guest's again: nobody writes to it any more.
        let (before, used) = (it.interrupts(), driver.used_ring().guest);
        driver.put(page.guest, &[0x11; 4096]);
        driver.put(used, &[0x22; 4096]);
        thread::yield_now();
        assert_eq!(driver.get::<4096>(page.guest), [0x11; 4096]);
        assert_eq!(driver.get::<4096>(used), [0x22; 4096]);
        assert_eq!(it.interrupts(), before);
        for page in [page, status, driver.desc_table(), driver.avail_ring(), driver.used_ring()] {
            driver.release(page);
        }
    }
}

#[test]
fn a_kick_before_the_queue_is_live_is_not_lost() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let mut driver = start(&it);
    let window = driver.window().clone();
    let (header, data, status) = (driver.header(IN, 2), driver.buffer(512), driver.filled(&[0xff]));
    driver
        .chain(0, &[(header.device, 16, 0), (data.device, 512, WRITE), (status.device, 1, WRITE)]);
    window.write(reg::QUEUE_READY, 0);
    driver.offer(0);
    assert!(!driver.is_answered(), "not while the queue is stopped");
    window.write(reg::QUEUE_READY, 1);
    assert_eq!(driver.used().len, 513);
}

#[test]
fn one_process_serves_several_disks_of_several_guests() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    let mut drivers = Vec::new();
    for domid in 1..=3 {
        let domain = host.create_guest(domid);
        let kernel = GuestKernel::new(&domain, Sharing::Foreign);
        for nth in 0..11 {
            let disk =
                DeviceConfig::disk(domid, nth, host.image(&format!("{domid}-{nth}.img"), 8192));
            host.serve(&disk);
            drivers.push((
                domain.clone(),
                FakeDriver::start(host.window(&disk), &kernel, FEATURES),
                disk,
            ));
        }
    }
    for (domain, driver, disk) in &mut drivers {
        assert_serves(driver);
        until("the disk's own interrupt", || domain.irq_count(disk.irq()) == 1);
    }
}

#[test]
fn a_driver_that_dies_leaves_the_device_to_the_next() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    // As after a guest's crash dump kernel starts: no reset, no good-bye.
    std::mem::forget(start(&it));
    let mut driver = probe(it.window(), &it.kernel).unwrap();
    let mut sector = [0; 512];
    driver.read_blocks(1, &mut sector).unwrap();
    assert_eq!(sector, sector_pattern(1));
}
