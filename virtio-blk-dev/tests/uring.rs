//! The engine over io_uring behind a worker.
#![cfg(all(feature = "test-utils", not(miri)))]

#[path = "common/allocations.rs"]
mod allocations;
mod common;

use std::os::fd::AsRawFd;
use std::sync::Arc;

use allocations::ALLOCATIONS;
use common::*;
use tempfile::NamedTempFile;
use virtio_blk_dev::{BlockConfig, Engine, Image, RawImage, UringConfig, UringEngine};

fn disk(sectors: u64) -> (NamedTempFile, Arc<RawImage>) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), contents(sectors)).unwrap();
    let image = Arc::new(RawImage::open(file.path(), false).unwrap());
    (file, image)
}

/// A guest on `image`; `None`, and the reason printed, where the kernel has no io_uring.
fn guest(image: &Arc<RawImage>, inline: bool) -> Option<Guest<UringEngine>> {
    let config = UringConfig { depth: 8, inline, ..UringConfig::default() };
    let engine = UringEngine::with_config(Arc::clone(image), &config)
        .map_err(|error| eprintln!("skipped: {error}"))
        .ok()?;
    Some(Guest::new(image.capacity(), &BlockConfig::default(), F_ALL, engine))
}

/// Serves what is available, sleeping on the engine's descriptor alone.
fn serve<E: Engine>(guest: &mut Guest<E>) {
    guest.kick();
    while guest.worker.queue().in_flight() > 0 {
        let fd = guest.worker.as_fd().unwrap().as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which outlives the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 10_000) };
        assert_eq!(ready, 1, "something is in flight, and nobody tells of it");
        guest.kick();
    }
}

#[test]
fn a_guest_writes_flushes_and_reads_back() {
    for inline in [true, false] {
        let (file, image) = disk(64);
        let Some(mut guest) = guest(&image, inline) else { return };
        let mut rooms = Vec::new();
        for n in 0..20u64 {
            let data = guest.out(&[0x80 | n as u8; 1024]);
            let writes = [guest.header(OUT, 2 * n), data, guest.room(1)];
            rooms.push(writes[2].addr);
            guest.add_indirect(&writes);
        }
        serve(&mut guest);
        let flushes = [guest.header(FLUSH, 0), guest.room(1)];
        rooms.push(flushes[1].addr);
        guest.add(&flushes);
        serve(&mut guest);
        let reads = [guest.header(IN, 0), guest.room(20 * 1024), guest.room(1)];
        rooms.push(reads[2].addr);
        guest.add(&reads);
        serve(&mut guest);
        assert_eq!(guest.used().len(), 22);
        assert!(rooms.iter().all(|status| guest.get(*status, 1) == [OK]));
        let expected: Vec<u8> = (0..20).flat_map(|n| [0x80 | n as u8; 1024]).collect();
        assert!(guest.get(reads[1].addr, 20 * 1024) == expected);
        assert!(std::fs::read(file.path()).unwrap()[..20 * 1024] == expected);
    }
}

#[test]
fn drain_leaves_nothing_in_flight() {
    for inline in [true, false] {
        let (_file, image) = disk(64);
        let Some(mut guest) = guest(&image, inline) else { return };
        let flushes = [guest.header(FLUSH, 0), guest.room(1)];
        let reads = [guest.header(IN, 1), guest.room(512), guest.room(1)];
        for _ in 0..16 {
            guest.add(&flushes);
            guest.add(&reads);
        }
        guest.kick();
        guest.worker.drain().unwrap();
        assert_eq!(guest.worker.queue().in_flight(), 0);
        assert_eq!(guest.used().len(), 32);
    }
}

#[test]
fn nothing_is_allocated_in_the_steady_state() {
    for inline in [true, false] {
        let (_file, image) = disk(64);
        let Some(mut guest) = guest(&image, inline) else { return };
        let data = guest.out(&[7; 512]);
        let reads = [guest.header(IN, 1), guest.room(512), guest.room(512), guest.room(1)];
        let writes = [guest.header(OUT, 2), data, guest.room(1)];
        let flushes = [guest.header(FLUSH, 0), guest.room(1)];
        let mut round = || {
            for _ in 0..8 {
                guest.add(&reads);
                guest.add_indirect(&writes);
            }
            guest.add(&flushes);
            let before = ALLOCATIONS.get();
            serve(&mut guest);
            let allocated = ALLOCATIONS.get() - before;
            assert_eq!(guest.used().len(), 17);
            allocated
        };
        for _ in 0..4 {
            round();
        }
        for _ in 0..20 {
            assert_eq!(round(), 0);
        }
    }
}
