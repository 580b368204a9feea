//! The toolstack's handshake in xenstore: who is served, when, and what is said of the others.

mod common;

use std::{
    fs::{self, File},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use common::{
    host::{Host, sector_pattern},
    one_disk::OneDisk,
    virtio_driver::{probe, read_sector},
};
use virtio_blk_dev::RawImage;
use virtio_dev::feature::{ACCESS_PLATFORM, VERSION_1};
use xen_store::{Op, Store};
use xen_virtio_backend::{
    fake::{DeviceConfig, FakeDriver, GuestKernel, Sharing, Watchdog, reg},
    node::DeviceType,
};

/// `DEVICE_NEEDS_RESET` (virtio 1.2 §2.1).
const NEEDS_RESET: u32 = 64;

#[test]
fn init_wait_is_written_only_when_the_window_answers() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    host.create_guest(1);
    let disk = DeviceConfig::disk(1, 0, host.image("a.img", 4096));
    let window = host.window(&disk);
    assert!(!window.is_there(), "nobody answers before the disk is plugged");
    let seen = Arc::new(AtomicU32::new(0));
    let sees = Arc::clone(&seen);
    let its = window.clone();
    host.on_write(move |path, value| {
        if path.ends_with("/state") && value == b"2" {
            // Before this write reaches xenstore, so before any guest can run on it.
            sees.store(its.read(reg::MAGIC), Ordering::SeqCst);
        }
    });
    host.serve(&disk);
    assert_eq!(seen.load(Ordering::SeqCst), reg::MAGIC_VALUE);
    assert_eq!(window.read(reg::DEVICE_ID), 2);
}

#[test]
fn two_guests_with_two_disks_each_are_served_at_once() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    let mut disks = Vec::new();
    for domid in [1, 2] {
        let kernel = GuestKernel::new(&host.create_guest(domid), Sharing::Foreign);
        for nth in 0..2 {
            let image = host.image(&format!("{domid}-{nth}.img"), 8192);
            fs::write(&image, vec![domid as u8 * 16 + nth as u8; 8192]).unwrap();
            let disk = DeviceConfig::disk(domid, nth, &image);
            host.serve(&disk);
            disks.push((disk, kernel.clone()));
        }
    }
    for (disk, kernel) in &disks {
        let nth = ((disk.id().devid - 51712) / 16) as u8;
        assert_eq!(read_sector(&host, disk, kernel, 3), [disk.domid() as u8 * 16 + nth; 512]);
    }
    // One goes; the others stay.
    let (gone, _) = disks.remove(0);
    host.close_device(&gone);
    host.settle();
    assert!(!host.window(&gone).has_device());
    for (disk, kernel) in &disks {
        read_sector(&host, disk, kernel, 0);
    }
}

#[test]
fn disks_that_wait_before_the_backend_starts_are_served() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    host.stop_backend();
    host.create_guest(1);
    let disk = DeviceConfig::disk(1, 0, host.image("a.img", 4096));
    host.add_device(&disk);
    host.start_backend();
    host.settle();
    assert_eq!(host.state(&disk).as_deref(), Some("2"));
    assert_eq!(host.window(&disk).read(reg::MAGIC), reg::MAGIC_VALUE);
}

#[test]
fn closing_lets_go_of_window_image_and_memory() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let mut it = OneDisk::new(sharing);
        let window = it.window();
        let driver = probe(window.clone(), &it.kernel).unwrap();
        assert!(RawImage::open(&it.image, false).is_err(), "locked while it is served");
        it.host.close_device(&it.disk);
        it.host.settle();
        assert_eq!(it.host.state(&it.disk).as_deref(), Some("6"));
        assert!(!it.window().has_device());
        assert_eq!(it.domain.grants().live_grants(), 0);
        // The toolstack may destroy the guest now.
        assert_eq!(it.domain.foreign_memory().live_mappings(), 1, "the page of requests");
        RawImage::open(&it.image, false).expect("closed, and its lock released");
        // Its registers are gone: the guest, dead, can't say goodbye.
        window.power_off();
        drop(driver);
    }
}

#[test]
fn a_disk_that_was_closed_can_come_again() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    for _ in 0..5 {
        it.host.close_device(&it.disk);
        it.host.settle();
        it.host.remove_device(&it.disk);
        it.host.settle();
        it.host.serve(&it.disk);
        assert_eq!(read_sector(&it.host, &it.disk, &it.kernel, 1), sector_pattern(1));
    }
}

#[test]
fn a_directory_that_vanishes_is_a_disk_that_goes() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    it.host.remove_device(&it.disk);
    it.host.settle();
    assert!(!it.window().has_device());
    assert_eq!(it.host.state(&it.disk), None, "and nothing is written there again");
    RawImage::open(&it.image, false).expect("closed");
}

#[test]
fn a_guest_that_was_destroyed_is_let_go_and_the_others_are_not() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let doomed = it.host.create_guest(2);
    let image = it.host.image("b.img", 4096);
    let disk = DeviceConfig::disk(2, 0, &image);
    it.host.serve(&disk);
    let kernel = GuestKernel::new(&doomed, Sharing::Foreign);
    let window = it.host.window(&disk);
    let driver = probe(window.clone(), &kernel).unwrap();
    it.host.destroy_guest(2);
    it.host.settle();
    window.power_off();
    drop(driver);
    assert_eq!(doomed.foreign_memory().live_mappings(), 0);
    RawImage::open(&image, false).expect("closed");
    assert_eq!(read_sector(&it.host, &it.disk, &it.kernel, 2), sector_pattern(2));
    // The toolstack removes the nodes later.
    it.host.remove_device(&disk);
    it.host.settle();
}

#[test]
fn a_domid_that_comes_again_is_another_guest() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    for _ in 0..3 {
        it.host.destroy_guest(1);
        it.host.remove_device(&it.disk);
        it.host.settle();
        it.domain = it.host.create_guest(1);
        it.kernel = GuestKernel::new(&it.domain, Sharing::Foreign);
        it.host.serve(&it.disk);
        assert_eq!(read_sector(&it.host, &it.disk, &it.kernel, 4), sector_pattern(4));
    }
}

#[test]
fn the_end_of_the_backend_lets_go_of_everything() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Grant);
    let window = it.window();
    let driver = probe(window.clone(), &it.kernel).unwrap();
    it.host.stop_all();
    window.power_off();
    assert!(!it.window().is_there());
    assert_eq!(it.domain.grants().live_grants(), 0);
    assert_eq!(it.domain.foreign_memory().live_mappings(), 0);
    RawImage::open(&it.image, false).expect("closed");
    drop(driver);
}

/// A device that isn't served has its error in both places, and no `state` for libxl to wait on.
fn assert_refused(host: &Host, disk: &DeviceConfig, says: &[&str]) {
    let error = host.error(disk).unwrap_or_else(|| panic!("no error for {disk:?}"));
    assert_eq!(host.lasting_error(disk).as_ref(), Some(&error));
    for says in says {
        assert!(error.contains(says), "{error:?} doesn't say {says:?}");
    }
    assert_eq!(host.state(disk), None, "libxl would wait");
    assert!(!host.window(disk).has_device());
}

#[test]
fn a_disk_that_cannot_be_served_says_why_and_disturbs_nobody() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let dir = it.image.parent().unwrap().to_owned();
    let empty = dir.join("empty.img");
    File::create(&empty).unwrap();
    let image = it.host.image("good.img", 4096);
    let bad = DeviceConfig::disk(1, 1, &image);
    let missing = DeviceConfig::disk(1, 1, dir.join("missing.img"));
    let cases: [(DeviceConfig, &[&str]); 10] = [
        (missing, &["missing.img"]),
        (DeviceConfig::disk(1, 1, &dir), &[dir.to_str().unwrap(), "directory"]),
        (DeviceConfig::disk(1, 1, &empty), &["empty.img"]),
        (DeviceConfig::disk(1, 1, &it.image), &["disk.img", "in use"]),
        (bad.clone().with("base", "banana"), &["/base", "banana"]),
        (bad.clone().with("irq", "7"), &["/irq", "7"]),
        (bad.clone().with("frontend-id", "99"), &["/frontend-id", "99"]),
        (bad.clone().without("params"), &["/params", "missing"]),
        (bad.clone().with("specification", [0xff, 0xfe]), &["/specification"]),
        (bad.clone().with("base", "33554432"), &["domain 1"]), // where the first disk stands
    ];
    for (disk, says) in cases {
        it.host.add_device(&disk);
        it.host.settle();
        if disk.node("base") == Some(b"33554432") {
            assert!(it.host.error(&disk).is_some_and(|error| error.contains(says[0])));
            assert_eq!(it.host.state(&disk), None);
        } else {
            assert_refused(&it.host, &disk, says);
        }
        assert_eq!(read_sector(&it.host, &it.disk, &it.kernel, 9), sector_pattern(9));
        it.host.remove_device(&disk);
        it.host.settle();
    }
    // The same place, done right.
    it.host.serve(&bad);
    assert_eq!(it.host.lasting_error(&bad), None, "no longer true");
    assert_eq!(read_sector(&it.host, &bad, &it.kernel, 1), sector_pattern(1));
}

#[test]
fn the_generic_virtio_form_is_refused_by_name_and_its_window_is_empty() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let generic = DeviceConfig::generic(1, 1, DeviceType::BLOCK);
    it.host.add_device(&generic);
    it.host.settle();
    let error = it.host.error(&generic).expect("a reason");
    assert!(error.contains("virtio = [") && error.contains("disk = ["), "{error}");
    assert_eq!(it.host.lasting_error(&generic), Some(error));
    // libxl doesn't wait for these devices, so the guest runs, and finds nothing there but all ones.
    let window = it.host.window(&generic);
    assert_eq!(window.read(reg::MAGIC), u32::MAX);
    window.write(reg::STATUS, 1);
    assert_eq!(read_sector(&it.host, &it.disk, &it.kernel, 9), sector_pattern(9));
    it.host.close_device(&generic);
    it.host.settle();
    assert_eq!(it.host.state(&generic).as_deref(), Some("6"));
    assert_eq!(window.read(reg::MAGIC), u32::MAX);
    assert_eq!(read_sector(&it.host, &it.disk, &it.kernel, 9), sector_pattern(9));
}

#[test]
fn generic_devices_of_other_types_are_left_to_their_backends() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let entropy = DeviceConfig::generic(1, 1, DeviceType(4));
    it.host.add_device(&entropy);
    it.host.settle();
    assert_eq!(it.host.error(&entropy), None);
    assert!(!it.host.window(&entropy).is_there(), "for its own backend to claim");
    it.host.close_device(&entropy);
    it.host.settle();
    assert_eq!(it.host.state(&entropy).as_deref(), Some("5"), "for its own backend to answer");
    it.host.remove_device(&entropy);
    it.host.settle();
    assert_eq!(read_sector(&it.host, &it.disk, &it.kernel, 9), sector_pattern(9));
}

#[test]
fn a_disk_of_an_earlier_backend_is_left_alone() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    it.host.stop_all();
    assert_eq!(it.host.state(&it.disk).as_deref(), Some("2"), "as a backend that died leaves it");
    it.host.start_backend();
    it.host.settle();
    assert_eq!(it.host.state(&it.disk).as_deref(), Some("2"));
    assert!(!it.window().is_there(), "the guest's driver would find another device than it left");
    // It can still be closed, and then come again.
    it.host.close_device(&it.disk);
    it.host.settle();
    assert_eq!(it.host.state(&it.disk).as_deref(), Some("6"));
    it.host.remove_device(&it.disk);
    it.host.settle();
    it.host.serve(&it.disk);
}

#[test]
fn a_xen_without_ioreq_servers_is_named() {
    let mut host = Host::new();
    let domain = host.create_guest(1);
    domain.fail_next(xen_ioreq::fake::Call::Create, 1, libc::ENOSYS);
    let disk = DeviceConfig::disk(1, 0, host.image("disk.img", 4096));
    host.add_device(&disk);
    host.settle();
    assert_refused(&host, &disk, &["create an IOREQ server", "without CONFIG_IOREQ_SERVER"]);
}

#[test]
fn a_guest_whose_devices_cannot_be_opened_is_refused_and_tried_again_when_it_comes_again() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    let domain = host.create_guest(1);
    let disk = DeviceConfig::disk(1, 0, host.image("a.img", 4096));
    host.destroy_guest(1);
    drop(domain);
    host.add_device(&disk);
    host.settle();
    assert!(host.error(&disk).is_some_and(|error| error.contains("domain 1")));
    assert_eq!(host.state(&disk), None);
    host.remove_device(&disk);
    host.settle();
    host.create_guest(1);
    host.serve(&disk);
}

#[test]
fn what_xenstore_refuses_once_is_not_the_end_of_the_backend() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    host.create_guest(1);
    let [first, second] =
        [0, 1].map(|nth| DeviceConfig::disk(1, nth, host.image(&format!("{nth}.img"), 4096)));
    host.store.fail_next(Op::TransactionStart, 1, "EQUOTA");
    host.store.fail_next(Op::Directory, 1, "EACCES");
    for (node, value) in first.nodes() {
        host.store.write(None, &format!("{}/{node}", first.path()), value).unwrap();
    }
    host.settle();
    host.serve(&second);
    assert!(host.window(&second).is_there());
    // What was refused is done at the next event.
    host.store.write(None, &format!("{}/online", first.path()), b"1").unwrap();
    host.settle();
    assert_eq!(host.state(&first).as_deref(), Some("2"));
}

#[test]
fn a_guest_that_does_not_grant_its_memory_though_it_was_told_to_is_told_the_cure() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Grant);
    // As a Linux without CONFIG_XEN_VIRTIO, which takes VIRTIO_F_ACCESS_PLATFORM for the IOMMU's.
    let without_option = GuestKernel::new(&it.domain, Sharing::Foreign);
    for _ in 0..3 {
        FakeDriver::start(it.window(), &without_option, VERSION_1 | ACCESS_PLATFORM);
        assert_eq!(it.window().read(reg::STATUS) & NEEDS_RESET, NEEDS_RESET);
    }
    it.host.settle();
    let error = it.host.error(&it.disk).expect("a reason");
    assert!(error.contains("CONFIG_XEN_VIRTIO") && error.contains("grant_usage=0"), "{error}");
    assert_eq!(it.host.lasting_error(&it.disk), Some(error));
    assert_eq!(it.host.state(&it.disk).as_deref(), Some("2"), "a driver that grants may come");
    it.window().write(reg::STATUS, 0);
    assert_eq!(read_sector(&it.host, &it.disk, &it.kernel, 9), sector_pattern(9));
    // Other mistakes aren't taken for this one.
    let mut other = OneDisk::new(Sharing::Foreign);
    other.window().write(reg::STATUS, 0);
    FakeDriver::start(other.window(), &GuestKernel::new(&other.domain, Sharing::Grant), VERSION_1);
    other.host.settle();
    assert_eq!(other.host.error(&other.disk), None);
}

#[test]
fn a_lost_xenstore_leaves_the_disks_that_are_served() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    let kernel = GuestKernel::new(&host.create_guest(1), Sharing::Foreign);
    let disk = DeviceConfig::disk(1, 0, host.image("a.img", 8192));
    host.serve(&disk);
    host.store.disconnect();
    assert!(host.handle_events().unwrap_err().is_disconnected());
    assert_eq!(read_sector(&host, &disk, &kernel, 3), sector_pattern(3));
}
