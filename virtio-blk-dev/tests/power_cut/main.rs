//! A loss of power at every point of what a guest and a disk do: what the guest knows to be stable
//! is there, and everything else is old or new, sector by sector, and never anything else.
#![cfg(all(feature = "test-utils", not(miri)))]
#![allow(unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod driver;
mod image;
mod log;

use std::sync::Arc;

use common::*;
use driver::{Driver, Mix};
use image::RecordedImage;
use virtio_blk_dev::fake::FakeEngine;
use virtio_blk_dev::{BlockConfig, Engine, Image, SyncEngine};

const F_RANGES: u64 = F_ALL | F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE;
const F_WRITE_THROUGH: u64 = F_RANGES & !F_FLUSH;
const F_SWITCH: u64 = F_RANGES | F_CONFIG_WCE;

fn guest<E: Engine>(
    image: &Arc<RecordedImage>,
    features: u64,
    engine: impl FnOnce(Arc<RecordedImage>) -> E,
) -> Guest<E> {
    let config = BlockConfig { queue_size: 64, ..BlockConfig::for_image(&**image) };
    Guest::new(image.capacity(), &config, features, engine(Arc::clone(image)))
}

/// Has a driver work on a disk, and cuts the power at every point of that.
fn survive<E: Engine>(
    features: u64,
    mix: Mix,
    seed: u64,
    engine: impl FnOnce(Arc<RecordedImage>) -> E,
) {
    let image = Arc::new(RecordedImage::new(seed));
    let guest = guest(&image, features, engine);
    let log = Driver::new(guest, image, features, seed).work(mix);
    assert!(log.answers() > 40, "{} answers are too few to say anything", log.answers());
    if let Err(wrong) = log.check() {
        panic!("seed {seed}: {wrong}");
    }
}

const SEEDS: std::ops::Range<u64> = 1..9;

fn late(seed: u64) -> impl FnOnce(Arc<RecordedImage>) -> FakeEngine {
    move |image| FakeEngine::new(image, seed).unwrap()
}

#[test]
fn what_was_flushed_is_there() {
    for seed in SEEDS {
        survive(F_RANGES, Mix::Flushes, seed, SyncEngine::new);
        survive(F_RANGES, Mix::Flushes, seed, late(seed));
    }
}

#[test]
fn what_was_written_through_is_there() {
    for seed in SEEDS {
        survive(F_WRITE_THROUGH, Mix::Changes, seed, SyncEngine::new);
        survive(F_WRITE_THROUGH, Mix::Changes, seed, late(seed));
    }
}

#[test]
fn a_cache_switched_at_any_time_keeps_its_promises() {
    for seed in SEEDS {
        survive(F_SWITCH, Mix::Switches, seed, SyncEngine::new);
        survive(F_SWITCH, Mix::Switches, seed, late(seed));
        // Which can't be flushed, and begins without a cache.
        survive(F_SWITCH & !F_FLUSH, Mix::Switches, seed, SyncEngine::new);
    }
}

#[test]
fn what_was_cached_is_there_when_the_cache_is_off() {
    for seed in SEEDS {
        survive(F_SWITCH, Mix::OneSwitch, seed, SyncEngine::new);
        survive(F_SWITCH, Mix::OneSwitch, seed, late(seed));
    }
}

/// The tests above can fail: a storage that forgets flushes is found out in each of them.
#[test]
fn a_forgotten_flush_is_seen() {
    for (features, mix) in [
        (F_RANGES, Mix::Flushes),
        (F_WRITE_THROUGH, Mix::Changes),
        (F_SWITCH, Mix::Switches),
        (F_SWITCH, Mix::OneSwitch),
    ] {
        let found = SEEDS
            .filter(|&seed| {
                let image = Arc::new(RecordedImage::new(seed).without_flushes());
                let guest = guest(&image, features, SyncEngine::new);
                Driver::new(guest, image, features, seed).work(mix).check().is_err()
            })
            .count();
        assert!(found as u64 > SEEDS.end / 2, "{mix:?}: in {found} of {SEEDS:?}");
    }
}

/// Nor may anything be there that nobody wrote.
#[test]
fn a_torn_sector_is_seen() {
    let found = SEEDS
        .filter(|&seed| {
            let image = Arc::new(RecordedImage::new(seed).tearing_sectors());
            let guest = guest(&image, F_RANGES, SyncEngine::new);
            Driver::new(guest, image, F_RANGES, seed).work(Mix::Flushes).check().is_err()
        })
        .count();
    assert!(found as u64 > SEEDS.end / 2, "in {found} of {SEEDS:?}");
}
