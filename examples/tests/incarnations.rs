//! Which device stands in a place: what the toolstack removes, writes again, or has not finished writing.

mod common;

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, sync::Arc, time::Duration};

use common::{
    host::{Host, sector_pattern},
    one_disk::OneDisk,
    virtio_driver::probe,
};
use virtio_blk_dev::RawImage;
use xen_ioreq::DeviceModel;
use xen_store::{Error, Op, Store, fake::FakeStore};
use xen_virtio_backend::{
    HandshakeError,
    fake::{DeviceConfig, GuestKernel, Sharing, Watchdog, reg},
    node::DeviceType,
};

fn first_sector(host: &Host, disk: &DeviceConfig, kernel: &Arc<GuestKernel>) -> [u8; 512] {
    let mut driver = probe(host.window(disk), kernel).expect("a device");
    let mut data = [0; 512];
    driver.read_blocks(0, &mut data).unwrap();
    data
}

#[test]
fn a_device_that_was_replaced_before_the_backend_looked_is_served_as_its_nodes_say() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let other = it.host.image("other.img", 8192);
    fs::write(&other, [0xab; 8192]).unwrap();
    let second = DeviceConfig::disk(1, 0, &other);
    it.host.remove_device(&it.disk);
    it.host.add_device(&second);
    it.host.settle();
    assert_eq!(it.host.state(&second).as_deref(), Some("2"));
    assert_eq!(first_sector(&it.host, &second, &it.kernel), [0xab; 512]);
    RawImage::open(&it.image, false).expect("the first image is closed");
}

#[test]
fn a_device_that_was_replaced_while_its_image_was_opened_is_served_as_its_nodes_say() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    let kernel = GuestKernel::new(&host.create_guest(1), Sharing::Foreign);
    let [first, second] = ["first.img", "second.img"].map(|name| host.image(name, 8192));
    fs::write(&second, [0xab; 8192]).unwrap();
    let (first, second) = (DeviceConfig::disk(1, 0, &first), DeviceConfig::disk(1, 0, &second));
    host.add_device(&first);
    // The nodes have been read when the transaction that announces the disk begins.
    let toolstack = host.store.connect(0);
    let image = second.node("params").unwrap().to_owned();
    let params = format!("{}/params", second.path());
    host.on_transaction(move || toolstack.write(None, &params, &image).unwrap());
    host.settle_until(Duration::from_secs(5), |host| host.state(&second).as_deref() == Some("2"));
    assert_eq!(first_sector(&host, &second, &kernel), [0xab; 512]);
}

#[test]
fn a_refused_device_whose_directory_went_in_one_go_is_forgotten() {
    let _watchdog = Watchdog::start();
    for kind in ["virtio_disk", "virtio"] {
        let mut it = OneDisk::new(Sharing::Foreign);
        let bad = match kind {
            "virtio" => DeviceConfig::generic(1, 1, DeviceType::BLOCK),
            _ => DeviceConfig::disk(1, 1, it.host.image("empty.img", 0)),
        };
        for _ in 0..2 {
            it.host.add_device(&bad);
            it.host.settle();
            assert!(it.host.error(&bad).is_some(), "{kind}");
            // As libxl does it for a guest's last device: the directory above goes.
            it.host.store.rm(None, &format!("/local/domain/0/backend/{kind}/1")).unwrap();
            it.host.settle();
        }
        // And all of it before the backend looks.
        it.host.add_device(&bad);
        it.host.settle();
        it.host.store.rm(None, &format!("/local/domain/0/backend/{kind}/1")).unwrap();
        it.host.add_device(&bad);
        it.host.settle();
        assert!(it.host.error(&bad).is_some(), "{kind}");
    }
}

#[test]
fn a_generic_device_without_a_type_is_waited_for_and_its_window_left_alone() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let generic = DeviceConfig::generic(1, 1, DeviceType::BLOCK).without("type");
    it.host.add_device(&generic);
    it.host.settle();
    assert_eq!(it.host.error(&generic), None);
    assert!(!it.host.window(&generic).is_there(), "its backend isn't known yet");
    let kind = format!("{}/type", generic.path());
    it.host.store.write(None, &kind, b"virtio,device4").unwrap();
    it.host.settle();
    assert!(!it.host.window(&generic).is_there(), "for its own backend to claim");
    // Another one, of our type.
    it.host.remove_device(&generic);
    it.host.add_device(&generic);
    it.host.settle();
    it.host.store.write(None, &kind, b"virtio,device2").unwrap();
    it.host.settle();
    assert!(it.host.error(&generic).is_some_and(|error| error.contains("disk = [")));
    assert_eq!(it.host.window(&generic).read(reg::MAGIC), u32::MAX);
    // One of another type in its place gets the window.
    it.host.remove_device(&generic);
    it.host.add_device(&generic.clone().with("type", "virtio,device4"));
    // For its own backend to claim.
    it.host.settle_until(Duration::from_secs(20), |host| !host.window(&generic).is_there());
}

#[test]
fn the_window_of_a_disk_that_was_closed_reads_all_ones_while_the_guest_lives() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    for _ in 0..3 {
        it.host.close_device(&it.disk);
        it.host.settle();
        assert_eq!(it.host.state(&it.disk).as_deref(), Some("6"));
        assert_eq!(it.window().read(reg::MAGIC), u32::MAX);
        it.window().write(reg::STATUS, 0);
        assert!(it.domain.hung_vcpus().is_empty() && !it.domain.is_crashed());
        it.host.remove_device(&it.disk);
        it.host.settle();
        assert_eq!(it.window().read(reg::MAGIC), u32::MAX);
        // A disk that comes again takes the window over.
        it.host.serve(&it.disk);
        assert_eq!(it.window().read(reg::MAGIC), reg::MAGIC_VALUE);
        assert_eq!(first_sector(&it.host, &it.disk, &it.kernel), sector_pattern(0));
    }
    it.host.close_device(&it.disk);
    it.host.settle();
    assert_eq!(it.domain.servers(), 1);
    it.host.destroy_guest(1);
    it.host.settle();
    assert_eq!(it.domain.foreign_memory().live_mappings(), 0, "nothing of the guest is held");
}

#[test]
fn what_xenstore_has_no_room_for_is_tried_again_until_it_has() {
    let _watchdog = Watchdog::start();
    for (op, times, errno) in [
        (Op::TransactionStart, 3, "EQUOTA"),
        (Op::TransactionEnd, 3, "EQUOTA"),
        // More often than a transaction is begun anew at once.
        (Op::TransactionEnd, 40, "EAGAIN"),
        (Op::Read, 1, "ENOMEM"),
    ] {
        let mut host = Host::new();
        host.create_guest(1);
        let disk = DeviceConfig::disk(1, 0, host.image("a.img", 4096));
        host.add_device(&disk);
        host.store.fail_next(op, times, errno);
        host.settle();
        // A single failure may be over by now.
        assert!(times == 1 || host.state(&disk).as_deref() == Some("1"), "{op:?} {errno}");
        assert_eq!(host.error(&disk), None, "{op:?} {errno}");
        host.settle_until(Duration::from_secs(20), |host| {
            host.state(&disk).as_deref() == Some("2")
        });
        assert_eq!(host.window(&disk).read(reg::MAGIC), reg::MAGIC_VALUE, "{op:?} {errno}");
    }
    // No event tells of devices that couldn't be listed.
    let mut host = Host::new();
    host.stop_backend();
    host.create_guest(1);
    let disk = DeviceConfig::disk(1, 0, host.image("a.img", 4096));
    host.add_device(&disk);
    host.start_backend();
    host.store.fail_next(Op::Directory, 2, "EQUOTA");
    host.settle_until(Duration::from_secs(20), |host| host.state(&disk).as_deref() == Some("2"));
}

#[test]
fn an_own_domain_id_that_is_no_number_is_an_error_and_not_dom0() {
    let host = Host::new();
    for domid in ["", "zero", "-1", "65536"] {
        let store = FakeStore::new();
        store.write(None, "/local/domain/0/domid", domid.as_bytes()).unwrap();
        let backend = host.handshake(store);
        let error = backend.err().unwrap_or_else(|| panic!("{domid:?} was taken for a number"));
        assert!(
            matches!(&error, HandshakeError::Store(Error::NotNumber { path, .. }) if path == "domid"),
            "{error}"
        );
    }
}

#[test]
fn an_image_whose_name_is_not_utf8_is_served() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    let kernel = GuestKernel::new(&host.create_guest(1), Sharing::Foreign);
    let image = host.image("plain.img", 8192);
    let odd = image.with_file_name(OsStr::from_bytes(b"caf\xe9 \xff.img"));
    fs::rename(&image, &odd).unwrap();
    let disk = DeviceConfig::disk(1, 0, &image).with("params", odd.as_os_str().as_bytes());
    host.serve(&disk);
    assert_eq!(first_sector(&host, &disk, &kernel), sector_pattern(0));
}

#[test]
fn a_guest_that_dies_without_its_devices_being_closed_is_let_go() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let mut it = OneDisk::new(sharing);
        let window = it.window();
        let driver = probe(window.clone(), &it.kernel).unwrap();
        it.domain.destroy();
        // Its pages are mapped here, so that Xen goes on telling of it.
        assert!(it.domain.device_model().nr_vcpus().is_ok());
        it.host.store.release_domain(1);
        it.host.settle();
        window.power_off();
        drop(driver);
        assert_eq!(it.domain.foreign_memory().live_mappings(), 0);
        RawImage::open(&it.image, false).expect("closed");
        assert!(it.domain.device_model().nr_vcpus().is_err(), "nothing keeps it any more");
    }
}
