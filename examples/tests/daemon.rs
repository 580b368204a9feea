//! The daemon as a whole: orders to stop, and a xenstore that is lost and comes back.

mod common;

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use backend_process::Notify;
use common::{host::sector_pattern, running::Running};
use virtio_blk_dev::RawImage;
use xen_store::Store;
use xen_virtio_backend::{
    daemon::{DaemonError, Extras},
    fake::{DeviceConfig, Watchdog, reg, until},
};

fn is_free(image: &Path) -> bool {
    RawImage::open(image, false).is_ok()
}

#[test]
fn at_the_order_to_stop_it_ends_and_guests_are_served_on_until_the_next_one_takes_them_over() {
    let _watchdog = Watchdog::start();
    let mut it = Running::new();
    let (first, disk) = it.guest(1);
    let (second, other) = it.guest(2);
    it.stop_and_end();
    assert!(it.says("told to stop") && it.says("guests=2"));
    assert_eq!(it.sector(&first, &disk), sector_pattern(1));
    assert_eq!(it.sector(&second, &other), sector_pattern(1));
    // While there is no supervisor, a guest ends.
    it.host.destroy_guest(1);
    until("its image is closed", || {
        is_free(Path::new(std::str::from_utf8(disk.node("params").unwrap()).unwrap()))
    });
    it.host.start_backend();
    it.host.settle();
    assert_eq!(it.host.state(&other).as_deref(), Some("2"));
    assert_eq!(it.sector(&second, &other), sector_pattern(1));
    it.host.close_device(&other);
    it.host.settle();
    assert_eq!(it.host.state(&other).as_deref(), Some("6"));
    assert_eq!(it.host.window(&other).read(reg::MAGIC), u32::MAX);
}

#[test]
fn a_lost_xenstore_is_reached_again_and_what_has_changed_meanwhile_is_taken_in() {
    let _watchdog = Watchdog::start();
    let mut it = Running::new();
    let (first, disk) = it.guest(1);
    let (_second, gone) = it.guest(2);
    it.reachable.store(false, Ordering::SeqCst);
    it.lose_xenstore();
    until("the log says so", || it.says("the connection to xenstored is lost"));
    assert_eq!(it.sector(&first, &disk), sector_pattern(1));
    // Meanwhile one disk goes, and one comes.
    it.host.close_device(&gone);
    let third = it.host.create_guest(3);
    let new = DeviceConfig::disk(3, 0, it.host.image("new.img", 8192));
    it.host.add_device(&new);
    it.reachable.store(true, Ordering::SeqCst);
    until("it is served", || it.host.state(&new).as_deref() == Some("2"));
    until("it is closed", || it.host.state(&gone).as_deref() == Some("6"));
    assert_eq!(it.sector(&third, &new), sector_pattern(1));
    assert_eq!(it.sector(&first, &disk), sector_pattern(1));
    it.stop_and_end();
}

#[test]
fn an_xenstore_that_comes_back_empty_takes_no_disk_from_a_guest() {
    let _watchdog = Watchdog::start();
    let mut it = Running::new();
    let (domain, disk) = it.guest(1);
    it.host.store.restart_empty();
    it.host.store = it.host.store.connect(0);
    until("the log says so", || it.says("xenstore has no nodes of the guest any more"));
    // Another guest comes, so that everything is looked at again.
    let (_other, _) = it.guest(2);
    assert_eq!(it.sector(&domain, &disk), sector_pattern(1));
    // Nobody tells of its end.
    domain.destroy();
    until("the log says so", || it.says("the guest has ended domid=1"));
    // What is said is done right after.
    until("nothing of it is mapped", || domain.foreign_memory().live_mappings() == 0);
    it.stop_and_end();
}

#[test]
fn a_guest_whose_nodes_are_removed_as_it_is_destroyed_is_not_said_to_have_lost_them() {
    let _watchdog = Watchdog::start();
    let mut it = Running::new();
    let (domain, disk) = it.guest(1);
    // As `xl destroy` does, which then asks Xen.
    it.host.store.rm(None, "/local/domain/1").unwrap();
    it.host.remove_device(&disk);
    thread::sleep(Duration::from_millis(300));
    assert!(it.host.window(&disk).has_device(), "it is served as long as it lives");
    domain.destroy();
    it.host.store.release_domain(1);
    until("nothing of it is mapped", || domain.foreign_memory().live_mappings() == 0);
    it.stop_and_end();
    assert!(!it.says("xenstore has no nodes"));
}

#[test]
fn a_daemon_that_serves_nobody_ends_with_an_error_when_xenstore_is_lost() {
    let _watchdog = Watchdog::start();
    let mut it = Running::new();
    let (domain, disk) = it.guest(1);
    it.reachable.store(false, Ordering::SeqCst);
    it.lose_xenstore();
    until("the log says so", || it.says("the connection to xenstored is lost"));
    thread::sleep(Duration::from_millis(300));
    assert!(it.is_running(), "a guest needs it");
    assert_eq!(it.sector(&domain, &disk), sector_pattern(1));
    domain.destroy();
    let error = it.end().unwrap_err();
    assert!(matches!(error, DaemonError::Lost(_)), "{error}");
}

#[test]
fn the_service_managers_watchdog_is_told_while_the_main_loop_goes_round_and_not_while_it_hangs() {
    let _watchdog = Watchdog::start();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let heard = || {
        let mut text = [0; 64];
        manager.recv(&mut text).ok().map(|len| String::from_utf8_lossy(&text[..len]).into_owned())
    };
    // So it is told every 50 ms.
    let notify = Notify::at(socket.as_os_str()).with_watchdog(Duration::from_millis(100));
    let mut it = Running::with(Extras { notify, ..Extras::default() });
    let (_domain, _disk) = it.guest(1);
    assert_eq!(heard().as_deref(), Some("READY=1"));
    for _ in 0..5 {
        assert_eq!(heard().as_deref(), Some("WATCHDOG=1"), "an idle loop goes round for it");
    }
    let hold_log = Arc::clone(&it.hold_log);
    let held = hold_log.lock().unwrap();
    // The loop logs this.
    it.lose_xenstore();
    until("the loop hangs", || heard().is_none());
    drop(held);
    until("it goes on", || heard().as_deref() == Some("WATCHDOG=1"));
    it.stop();
    it.end().unwrap();
}
