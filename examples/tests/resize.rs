//! An image that is resized under its guest.

mod common;

use std::{fs::File, os::unix::fs::FileExt};

use common::{
    block::{BlockRequests, IN, IOERR, OK, OUT},
    one_disk::{DISK_LEN, OneDisk},
};
use virtio_dev::feature::VERSION_1;
use xen_virtio_backend::fake::{FakeDriver, Sharing, Watchdog, Window, reg, until};

/// `VIRTIO_MMIO_INT_CONFIG` (virtio 1.2 §4.2.2).
const CONFIG_CHANGE: u32 = 2;

/// The operator makes the image so long, and tells the backend.
fn resize(it: &OneDisk, bytes: u64) {
    File::options().write(true).open(&it.image).unwrap().set_len(bytes).unwrap();
    it.host.refresh();
}

/// As Linux reads 64-bit fields: between two equal generations.
fn capacity(window: &Window) -> u64 {
    loop {
        let generation = window.read(reg::CONFIG_GENERATION);
        let half = |offset| u64::from(window.read(reg::CONFIG + offset));
        let sectors = half(0) | half(4) << 32;
        if window.read(reg::CONFIG_GENERATION) == generation {
            return sectors * 512;
        }
    }
}

#[test]
fn a_guest_is_told_of_the_new_size_and_uses_it() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let window = it.window();
    let mut driver = FakeDriver::start(window.clone(), &it.kernel, VERSION_1);
    let (generation, last) = (window.read(reg::CONFIG_GENERATION), DISK_LEN / 512);
    assert_eq!(capacity(&window), DISK_LEN);
    let page = driver.filled(&[0xcd; 512]);
    assert_eq!(driver.request(OUT, last, Some((page.device, 512))).0, IOERR);
    window.ack_interrupt();
    let interrupts = it.interrupts();

    resize(&it, 2 * DISK_LEN);
    until("the interrupt", || it.interrupts() > interrupts);
    assert_eq!(window.ack_interrupt(), CONFIG_CHANGE);
    assert_ne!(window.read(reg::CONFIG_GENERATION), generation);
    assert_eq!(capacity(&window), 2 * DISK_LEN);
    assert_eq!(driver.request(OUT, last, Some((page.device, 512))).0, OK);
    let mut sector = [0; 512];
    File::open(&it.image).unwrap().read_exact_at(&mut sector, DISK_LEN).unwrap();
    assert_eq!(sector, [0xcd; 512]);

    // A smaller disk is the operator's choice; what lies beyond fails, and nothing grows.
    resize(&it, DISK_LEN / 2);
    until("the new size", || capacity(&window) == DISK_LEN / 2);
    assert_eq!(driver.request(IN, 0, Some((page.device, 512))).0, OK);
    assert_eq!(driver.request(OUT, DISK_LEN / 1024, Some((page.device, 512))).0, IOERR);
    assert_eq!(it.image.metadata().unwrap().len(), DISK_LEN / 2);
}

#[test]
fn a_size_that_hasnt_changed_disturbs_nobody() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let window = it.window();
    let _driver = FakeDriver::start(window.clone(), &it.kernel, VERSION_1);
    let generation = window.read(reg::CONFIG_GENERATION);
    resize(&it, DISK_LEN);
    // Letting go comes after it in the same queue of the guest's thread.
    let interrupts = it.interrupts();
    assert_eq!(window.read(reg::CONFIG_GENERATION), generation);
    it.host.close_device(&it.disk);
    it.host.settle();
    assert_eq!(it.interrupts(), interrupts);
}
