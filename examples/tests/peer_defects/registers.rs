//! The registers, at any offset, width and value.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use virtio_dev::feature::{ACCESS_PLATFORM, VERSION_1};
use xen_virtio_backend::fake::{Sharing, Watchdog, Window, reg};

use crate::{
    assert_serves,
    common::one_disk::{DISK_LEN, OneDisk},
    start,
};

#[test]
fn config_access_beyond_the_struct_reaches_nothing() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let window = it.window();
    assert_eq!(window.read_sized(reg::CONFIG, 8), DISK_LEN / 512);
    // From here on is nothing that this device has (`max_secure_erase_sectors`, virtio 1.2 §5.2.4).
    let beyond = reg::CONFIG + 60;
    for offset in (reg::CONFIG + 36..0x200).chain([0x1fc, 0x1ff]) {
        for size in [1, 2, 4, 8] {
            if offset + u64::from(size) <= 0x200 {
                let before = window.read_sized(offset, size);
                window.write_sized(offset, size, u64::MAX);
                let after = window.read_sized(offset, size);
                assert_eq!(after, before, "{size} bytes at {offset:#x}");
                assert!(after == 0 || offset < beyond, "{size} bytes at {offset:#x}");
            }
        }
    }
    assert_serves(&mut start(&it));
}

#[test]
fn an_access_that_leaves_the_window_is_not_ours() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let vcpu = it.domain.vcpu(0);
    for addr in
        [it.disk.base() - 4, it.disk.base() - 2, it.disk.base() + 0x1fe, it.disk.base() + 0x200]
    {
        assert!(vcpu.read(addr, 4).is_err(), "{addr:#x}: Xen gives the guest an abort");
    }
    assert_serves(&mut start(&it));
}

#[test]
fn guest_chosen_indices_and_widths_hit_nothing() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let mut driver = start(&it);
    let window = &driver.window();
    for index in [1, 2, 255, 0xffff, 0x1_0000, u32::MAX] {
        window.write(reg::QUEUE_NOTIFY, index);
        window.write(reg::QUEUE_SEL, index);
        assert_eq!(window.read(reg::QUEUE_SIZE_MAX), 0);
        window.write(reg::QUEUE_SIZE, 16);
        window.write(reg::QUEUE_READY, 1);
        window.write(reg::QUEUE_DESC, 0);
        assert_eq!(window.read(reg::QUEUE_READY), 0);
    }
    for offset in 0..reg::CONFIG {
        for size in [1, 2, 8] {
            assert_eq!(window.read_sized(offset, size), 0, "{size} bytes at {offset:#x}");
        }
    }
    window.write(reg::QUEUE_SEL, 0);
    assert_serves(&mut driver);
}

#[test]
fn features_that_were_not_offered_are_not_accepted() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let it = OneDisk::new(sharing);
        let window = it.window();
        let offered = window.device_features();
        assert_eq!(offered & ACCESS_PLATFORM != 0, sharing == Sharing::Grant);
        let unknown = (0..64).map(|bit| 1 << bit).find(|bit| offered & bit == 0).unwrap();
        for features in [offered | unknown, offered & !VERSION_1, 0] {
            window.write(reg::STATUS, 0);
            window.write(reg::STATUS, 3);
            window.set_driver_features(features);
            window.write(reg::STATUS, 11);
            assert_eq!(window.read(reg::STATUS), 3, "{features:#x}");
        }
        if sharing == Sharing::Grant {
            window.set_driver_features(offered & !ACCESS_PLATFORM);
            window.write(reg::STATUS, 11);
            assert_eq!(window.read(reg::STATUS), 3, "plain addresses mean nothing here");
        }
        assert_serves(&mut start(&it));
    }
}

#[test]
fn vcpus_may_touch_a_device_at_the_same_time() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let mut driver = start(&it);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let window = Window::new(&it.domain, 1, it.disk.base(), it.disk.irq());
            while !done.load(Ordering::SeqCst) {
                assert_eq!(window.read(reg::MAGIC), reg::MAGIC_VALUE);
                window.write(reg::QUEUE_NOTIFY, 0);
            }
        });
        for _ in 0..100 {
            assert_serves(&mut driver);
        }
        done.store(true, Ordering::SeqCst);
    });
}
