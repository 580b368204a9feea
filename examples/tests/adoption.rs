//! Supervisors come and go; the processes of guests stay.

mod common;

use std::{
    fs::{self, File},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use common::{
    block::{BlockRequests, IN, OK, OUT},
    host::{Host, sector_pattern},
    one_disk::{DISK_LEN, OneDisk},
};
use virtio_blk_dev::RawImage;
use xen_virtio_backend::fake::{DeviceConfig, FakeDriver, Sharing, Watchdog, reg, until};

const LONG: Duration = Duration::from_secs(60);

/// What the driver reads of a sector.
fn read(driver: &mut FakeDriver, sector: u64) -> [u8; 512] {
    let page = driver.filled(&[0; 512]);
    assert_eq!(driver.request(IN, sector, Some((page.device, 512))), (OK, 513));
    let data = driver.get(page.guest);
    driver.release(page);
    data
}

fn is_free(image: &Path) -> bool {
    RawImage::open(image, false).is_ok()
}

#[test]
fn a_guest_reads_and_writes_on_while_supervisors_come_and_go() {
    let _watchdog = Watchdog::start();
    for sharing in Sharing::ALL {
        let mut it = OneDisk::new(sharing);
        let mut driver = it.host.driver(&it.disk, 0);
        let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let page = driver.filled(&[0; 512]);
                while !done.load(Ordering::Relaxed) {
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    let sector = round % 64;
                    let written = [round as u8; 512];
                    driver.put(page.guest, &written);
                    assert_eq!(driver.request(OUT, sector, Some((page.device, 512))).0, OK);
                    assert_eq!(read(&mut driver, sector), written);
                }
            });
            for _ in 0..50 {
                let before = rounds.load(Ordering::Relaxed);
                it.host.stop_backend();
                until("I/O without a supervisor", || rounds.load(Ordering::Relaxed) > before + 1);
                it.host.start_backend();
                it.host.settle();
                assert_eq!(it.host.state(&it.disk).as_deref(), Some("2"));
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(it.domain.servers(), 1, "one process has served it all the time");
        assert!(it.host.figures()[0].stats.requests() >= rounds.load(Ordering::Relaxed));
        it.host.close_device(&it.disk);
        it.host.settle();
        assert_eq!(it.host.state(&it.disk).as_deref(), Some("6"));
        assert!(is_free(&it.image));
    }
}

/// A host whose supervisor ends when the process of guest 1 has attached its disk; `None` if it has announced the disk
/// before.
fn with_a_disk_that_is_not_announced() -> Option<(Host, DeviceConfig)> {
    let mut host = Host::new();
    host.create_guest(1);
    let disk = DeviceConfig::disk(1, 0, host.image("disk.img", 8192));
    host.add_device(&disk);
    until("its process is started", || {
        host.handle_events().unwrap();
        host.domain(1).servers() == 1
    });
    until("the window answers", || host.window(&disk).has_device());
    let state = host.state(&disk);
    host.window(&disk).write(reg::STATUS, 1);
    host.stop_backend();
    (state.as_deref() == Some("1")).then_some((host, disk))
}

#[test]
fn a_disk_that_was_attached_and_not_announced_is_announced_by_the_next_supervisor() {
    let _watchdog = Watchdog::start();
    let attempts = (0..100).find_map(|_| with_a_disk_that_is_not_announced());
    let (mut host, disk) = attempts.expect("a supervisor that has not announced it");
    host.start_backend();
    host.settle();
    assert_eq!(host.state(&disk).as_deref(), Some("2"), "{:?}", host.error(&disk));
    assert_eq!(host.window(&disk).read(reg::STATUS), 1, "it is the device that was attached");
    assert_eq!(host.domain(1).servers(), 1);
    let mut driver = host.driver(&disk, 0);
    assert_eq!(read(&mut driver, 3), sector_pattern(3));
}

#[test]
fn a_disk_that_was_closed_or_removed_while_there_was_no_supervisor_is_let_go_of_by_the_next() {
    let _watchdog = Watchdog::start();
    for removed in [false, true] {
        let mut it = OneDisk::new(Sharing::Foreign);
        it.host.stop_backend();
        match removed {
            true => it.host.remove_device(&it.disk),
            false => it.host.close_device(&it.disk),
        }
        assert!(it.window().has_device());
        it.host.start_backend();
        it.host.settle();
        assert_eq!(it.host.state(&it.disk).as_deref(), (!removed).then_some("6"));
        assert_eq!(it.window().read(reg::MAGIC), u32::MAX);
        assert!(is_free(&it.image));
    }
}

#[test]
fn another_disk_in_the_place_of_one_that_was_served_is_served_by_the_next_supervisor() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let other = it.host.image("other.img", 4096);
    fs::write(&other, [7; 4096]).unwrap();
    it.host.stop_backend();
    it.host.remove_device(&it.disk);
    let disk = DeviceConfig::disk(1, 0, &other);
    it.host.add_device(&disk);
    it.host.start_backend();
    it.host.settle();
    assert_eq!(it.host.state(&disk).as_deref(), Some("2"), "{:?}", it.host.error(&disk));
    let mut driver = it.host.driver(&disk, 0);
    assert_eq!(read(&mut driver, 1), [7; 512]);
    assert!(is_free(&it.image) && !is_free(&other));
}

#[test]
fn a_guest_that_ends_while_there_is_no_supervisor_is_let_go_of_and_so_is_what_it_had() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    it.host.stop_backend();
    it.host.destroy_guest(1);
    until("its image is closed", || is_free(&it.image));
    until("nothing of it is mapped", || it.domain.foreign_memory().live_mappings() == 0);
    // The next guest of this number is another one.
    it.host.remove_device(&it.disk);
    it.host.create_guest(1);
    it.host.add_device(&it.disk);
    it.host.start_backend();
    it.host.settle_until(LONG, |host| host.state(&it.disk).as_deref() == Some("2"));
    assert!(it.window().has_device());
}

#[test]
fn a_guest_has_a_process_for_each_way_in_which_it_shares_its_memory() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let image = it.host.image("granted.img", 8192);
    let granted = DeviceConfig::disk(1, 1, &image).sharing(Sharing::Grant);
    it.host.serve(&granted);
    assert_eq!(it.domain.servers(), 2);
    for _ in 0..2 {
        for disk in [&it.disk, &granted] {
            let mut driver = it.host.driver(disk, 0);
            assert_eq!(read(&mut driver, 5), sector_pattern(5));
        }
        it.host.stop_backend();
        it.host.start_backend();
        it.host.settle();
    }
    it.host.destroy_guest(1);
    it.host.settle();
    assert!(is_free(&it.image) && is_free(&image));
    assert_eq!(it.domain.foreign_memory().live_mappings(), 0);
}

#[test]
fn an_order_that_comes_while_a_process_is_taken_over_reaches_it() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let sectors = |it: &OneDisk| it.window().read(reg::CONFIG);
    assert_eq!(u64::from(sectors(&it)), DISK_LEN / 512);
    it.host.stop_backend();
    File::options().write(true).open(&it.image).unwrap().set_len(2 * DISK_LEN).unwrap();
    it.host.start_backend();
    // SIGHUP, before the process has said anything.
    it.host.refresh();
    it.host.settle();
    until("the new size", || u64::from(sectors(&it)) == 2 * DISK_LEN / 512);
}

/// How often a process has to fail to take an event before it gives its guest up.
const GIVEN_UP: u32 = 16;

#[test]
fn a_guest_whose_process_ends_while_there_is_no_supervisor_is_answered_by_the_next_ones() {
    let _watchdog = Watchdog::start();
    for sharing in Sharing::ALL {
        let mut it = OneDisk::new(sharing);
        it.host.stop_backend();
        it.domain.hub().fail_next(xen_evtchn::fake::Call::Pending, GIVEN_UP, 5 /* EIO */);
        let mut access = it.domain.vcpu(0).begin_read(it.disk.base(), 4).unwrap();
        until("its process has ended", || it.host.processes().running() == 0);
        assert!(is_free(&it.image));
        assert!(access.poll().is_none(), "nobody answers, and nobody says that there is no device");
        it.host.start_backend();
        it.host.settle();
        assert_eq!(access.wait(), Ok(0xffff_ffff));
        let error = it.host.error(&it.disk).expect("a reason");
        assert!(error.contains("it has ended while no supervisor ran"), "{error}");
        for _ in 0..2 {
            assert_eq!(it.host.state(&it.disk).as_deref(), Some("6"));
            assert_eq!(it.window().read(reg::MAGIC), u32::MAX);
            assert_eq!(it.domain.servers(), 1);
            it.host.stop_backend();
            it.host.start_backend();
            it.host.settle();
        }
        it.host.destroy_guest(1);
        it.host.settle();
        until("nothing of it is mapped", || it.domain.foreign_memory().live_mappings() == 0);
    }
}

#[test]
fn each_process_of_a_guest_that_ends_while_there_is_no_supervisor_is_replaced() {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let image = it.host.image("granted.img", 8192);
    let granted = DeviceConfig::disk(1, 1, &image).sharing(Sharing::Grant);
    it.host.serve(&granted);
    it.host.stop_backend();
    // Both vCPUs wait, each for one of the processes.
    it.domain.hub().fail_next(xen_evtchn::fake::Call::Pending, 2 * GIVEN_UP, 5 /* EIO */);
    let accesses = [(0, it.disk.base()), (1, granted.base())];
    let accesses = accesses.map(|(vcpu, base)| it.domain.vcpu(vcpu).begin_read(base, 4).unwrap());
    until("its processes have ended", || it.host.processes().running() == 0);
    it.host.start_backend();
    it.host.settle();
    for access in accesses {
        assert_eq!(access.wait(), Ok(0xffff_ffff));
    }
    for disk in [&it.disk, &granted] {
        assert_eq!(it.host.state(disk).as_deref(), Some("6"));
        assert!(it.host.error(disk).is_some());
    }
    assert_eq!(it.domain.servers(), 2);
}
