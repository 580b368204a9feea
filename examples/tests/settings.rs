//! What an operator can choose for a disk, as its guest meets it.

mod common;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    block::{BlockRequests, IN, MQ, OK, OUT},
    config,
    host::{Host, sector_pattern},
    one_disk::{DISK_LEN, OneDisk},
    virtio_driver::probe,
};
use virtio_blk_dev::{Rate, RateLimits, Serial, UringEngine};
use virtio_dev::feature::VERSION_1;
use xen_store::Store;
use xen_virtio_backend::fake::{DeviceConfig, FakeDriver, GuestKernel, Sharing, Watchdog, reg};
use xen_virtio_blk::{
    engine_kind::EngineKind,
    settings::{Cache, DiskSettings},
};

const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;
const RO: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;

/// Those that this kernel has.
fn engines() -> impl Iterator<Item = EngineKind> {
    let uring = UringEngine::check().ok().map(|()| EngineKind::IoUring);
    [EngineKind::Sync].into_iter().chain(uring)
}

fn all_of(it: &OneDisk) {
    let mut driver = probe(it.window(), &it.kernel).expect("the driver takes the device");
    let data: Vec<u8> = (0..DISK_LEN as u32).map(|n| (n.wrapping_mul(97) >> 5) as u8).collect();
    for (nth, piece) in data.chunks(32 * 512).enumerate() {
        driver.write_blocks(nth * 32, piece).unwrap();
    }
    driver.flush().unwrap();
    assert!(it.contents() == data);
    let mut back = vec![0; 32 * 512];
    for (nth, piece) in data.chunks(32 * 512).enumerate() {
        driver.read_blocks(nth * 32, &mut back).unwrap();
        assert!(back == piece, "piece {nth}");
    }
}

#[test]
fn every_engine_serves_foreign_and_granted_memory_cached_and_direct() {
    for engine in engines() {
        for sharing in [Sharing::Foreign, Sharing::Grant] {
            for direct in [false, true] {
                let _watchdog = Watchdog::start();
                let settings = DiskSettings { engine, direct, ..DiskSettings::default() };
                let it = OneDisk::with_settings(sharing, settings);
                all_of(&it);
                assert_eq!(it.domain.grants().live_grants(), 0, "{engine:?}");
            }
        }
    }
}

#[test]
fn queues_are_served_side_by_side_and_reset_alone() {
    for engine in engines() {
        let _watchdog = Watchdog::start();
        let settings = DiskSettings { engine, queues: 3, ..DiskSettings::default() };
        let it = OneDisk::with_settings(Sharing::Grant, settings);
        let window = it.window();
        assert_eq!(window.device_features() & MQ, MQ);
        // `num_queues` (virtio 1.2 §5.2.4).
        assert_eq!(window.read_sized(reg::CONFIG + 34, 2), 3);
        let mut queues: [FakeDriver; 3] =
            FakeDriver::start_queues(window.clone(), &it.kernel, VERSION_1 | MQ | 1 << 33);
        for round in 0..4 {
            for (queue, nth) in queues.iter_mut().zip(0..) {
                let sector = round * 3 + nth;
                let page = queue.filled(&[0; 512]);
                assert_eq!(queue.request(IN, sector, Some((page.device, 512))), (OK, 513));
                assert_eq!(queue.get(page.guest), sector_pattern(sector));
                queue.release(page);
            }
        }
        window.write(reg::QUEUE_SEL, 1);
        window.write(reg::QUEUE_READY, 0);
        let page = queues[2].filled(&[0xab; 512]);
        assert_eq!(queues[2].request(OUT, 9, Some((page.device, 512))), (OK, 1));
        assert_eq!(it.contents()[9 * 512..10 * 512], [0xab; 512]);
        window.write(reg::STATUS, 0);
        queues[2].release(page);
        assert_eq!(it.domain.grants().live_grants(), 0);
    }
}

#[test]
fn a_disk_has_the_logical_block_size_that_was_set() {
    for (set, told) in [(None, 512), (Some(4096), 4096)] {
        let settings = DiskSettings { logical_block_size: set, ..DiskSettings::default() };
        let it = OneDisk::with_settings(Sharing::Foreign, settings);
        // `blk_size` (virtio 1.2 §5.2.4).
        assert_eq!(it.window().device_features() & BLK_SIZE, BLK_SIZE);
        assert_eq!(it.window().read_sized(reg::CONFIG + 20, 4), told);
    }
}

#[test]
fn with_one_queue_there_is_no_mq() {
    let it = OneDisk::new(Sharing::Foreign);
    assert_eq!(it.window().device_features() & MQ, 0);
}

#[test]
fn a_rate_limit_holds_a_disk_back() {
    let _watchdog = Watchdog::start();
    let limits =
        RateLimits { ops: Some(Rate { per_second: 100, burst: 1 }), ..RateLimits::default() };
    let settings = DiskSettings { limits, ..DiskSettings::default() };
    let it = OneDisk::with_settings(Sharing::Foreign, settings);
    let mut driver = probe(it.window(), &it.kernel).unwrap();
    let begin = Instant::now();
    for sector in 0..11 {
        driver.read_blocks(sector, &mut [0; 512]).unwrap();
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(100), "{took:?} for 10 requests beyond the first");
}

#[test]
fn the_guest_reads_the_serial_that_was_set() {
    let settings =
        DiskSettings { serial: Some(Serial::new("db-0").unwrap()), ..DiskSettings::default() };
    let it = OneDisk::with_settings(Sharing::Foreign, settings);
    let mut id = [0; 20];
    let mut driver = probe(it.window(), &it.kernel).unwrap();
    let len = driver.device_id(&mut id).unwrap();
    assert_eq!(&id[..len], b"db-0");
}

#[test]
fn a_disk_can_begin_without_a_cache() {
    for (cache, writeback) in [(Cache::Writeback, 1), (Cache::Writethrough, 0)] {
        let it = OneDisk::with_settings(
            Sharing::Foreign,
            DiskSettings { cache, ..DiskSettings::default() },
        );
        assert_eq!(it.window().read_sized(reg::CONFIG + 32, 1), writeback);
    }
}

#[test]
fn discards_and_zeroes_are_offered_unless_operator_or_toolstack_forbid_them() {
    let offered = |it: &OneDisk| it.window().device_features() & (DISCARD | WRITE_ZEROES);
    assert_eq!(offered(&OneDisk::new(Sharing::Foreign)), DISCARD | WRITE_ZEROES);
    let forbidden = OneDisk::configured(Sharing::Foreign, |disk| disk.with("discard-enable", "0"));
    assert_eq!(offered(&forbidden), 0);
    let settings = DiskSettings { discard: false, ..DiskSettings::default() };
    assert_eq!(offered(&OneDisk::with_settings(Sharing::Foreign, settings)), 0);
}

#[test]
fn a_cdrom_is_read_only() {
    let cdrom = |disk: DeviceConfig| disk.with("device-type", "cdrom");
    let it = OneDisk::configured(Sharing::Foreign, cdrom);
    assert_eq!(it.window().device_features() & RO, RO);
}

#[test]
fn a_table_that_matches_no_disk_at_the_start_is_told_of_once_and_holds_when_its_disk_comes() {
    let _watchdog = Watchdog::start();
    let dir = tempfile::tempdir().unwrap();
    let [file, log] = ["disks.toml", "log"].map(|name| dir.path().join(name));
    let images = ["served", "late", "of-an-earlier-backend", "refused", "mistyped"]
        .map(|name| dir.path().join(name));
    let [served, late, earlier, refused, _] = &images;
    let tables = images.each_ref().map(|image| format!("[{image:?}]\nserial = \"its-own\"\n"));
    fs::write(&file, tables.concat()).unwrap();
    for image in [served, late, earlier] {
        fs::write(image, [0; 4096]).unwrap();
    }
    let logger = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Arc::new(fs::File::create(&log).unwrap()))
        .finish();
    let told = || {
        let text = fs::read_to_string(&log).unwrap();
        let lines = text.lines().filter(|line| line.contains("matches no disk"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };

    tracing::subscriber::with_default(logger, || {
        let mut host = Host::with_settings(config::load(&file));
        host.stop_backend();
        let domain = host.create_guest(1);
        host.add_device(&DeviceConfig::disk(1, 0, served));
        host.add_device(&DeviceConfig::disk(1, 1, earlier).with("state", "4"));
        host.add_device(&DeviceConfig::disk(1, 2, refused));
        host.start_backend();
        assert!(told().is_empty(), "before xenstore was looked through");
        host.settle();
        let lines = told();
        assert_eq!(lines.len(), 2, "{lines:?}");
        for (line, image) in lines.iter().zip(["late", "mistyped"]) {
            assert!(line.contains(" WARN ") && line.contains(&format!("/{image}\"]")), "{line}");
        }

        let disk = DeviceConfig::disk(1, 3, late);
        host.serve(&disk);
        let mut driver =
            probe(host.window(&disk), &GuestKernel::new(&domain, Sharing::Foreign)).unwrap();
        let mut id = [0; 20];
        let len = driver.device_id(&mut id).unwrap();
        assert_eq!(&id[..len], b"its-own");
        drop(driver);
        host.close_device(&disk);
        host.settle();
        host.remove_device(&disk);
        // As a guest's last device leaves it: the directory itself changes.
        host.store.rm(None, "/local/domain/0/backend/virtio_disk").unwrap();
        host.settle();
        assert_eq!(told(), lines, "once");
    });
}
