//! What a guest that resets its disk again and again costs.

mod common;

use std::{collections::BTreeSet, fs};

use common::{one_disk::OneDisk, virtio_driver::probe};
use virtio_blk_dev::UringEngine;
use xen_virtio_backend::fake::{Sharing, Watchdog, reg};
use xen_virtio_blk::{engine_kind::EngineKind, settings::DiskSettings};

/// The rings that this process has open.
fn rings() -> BTreeSet<String> {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let target = fs::read_link(&path).ok()?;
            target.to_str()?.contains("io_uring").then(|| path.to_str().map(str::to_owned))?
        })
        .collect()
}

#[test]
fn a_disks_engines_live_as_long_as_the_disk_and_not_from_reset_to_reset() {
    if let Err(error) = UringEngine::check() {
        return eprintln!("skipped: {error}");
    }
    let _watchdog = Watchdog::start();
    assert!(rings().is_empty());
    for direct in [false, true] {
        let settings = DiskSettings {
            engine: EngineKind::IoUring,
            direct,
            queues: 2,
            ..DiskSettings::default()
        };
        let it = OneDisk::with_settings(Sharing::Foreign, settings);
        let of_the_disk = rings();
        assert!(of_the_disk.len() >= 2, "an engine for each queue: {of_the_disk:?}");
        for round in 0..8 {
            let mut driver = probe(it.window(), &it.kernel).expect("the driver takes the device");
            driver.read_blocks(round, &mut [0; 512]).unwrap();
            drop(driver);
            it.window().write(reg::STATUS, 0);
            assert_eq!(rings(), of_the_disk, "round {round}");
        }
        drop(it);
        assert!(rings().is_empty());
    }
}
