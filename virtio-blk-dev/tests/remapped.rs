//! A driver's memory that is mapped anew while requests are in hand, as over vhost-user.
#![cfg(feature = "test-utils")]

mod common;

use std::sync::{Arc, Mutex};
use std::thread;

use common::*;
use virtio_blk_dev::fake::{FakeEngine, FakeImage};
use virtio_blk_dev::{BlockConfig, Engine, Rate, RateLimits, SyncEngine};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

/// The memory that requests are given from now on; those in hand keep theirs.
#[derive(Clone)]
struct Current(Arc<Mutex<Arc<Memory>>>);

impl Current {
    /// Another memory at the same addresses, filled with `value`.
    fn replace(&self, value: u8) -> Arc<Memory> {
        let len = MEMORY_END as usize;
        let memory = Arc::new(Memory::from_ranges(&[(GuestAddress(0), len)]).unwrap());
        memory.write_slice(&vec![value; 0x1_0000], GuestAddress(0x20_0000)).unwrap();
        *self.0.lock().unwrap() = Arc::clone(&memory);
        memory
    }
}

impl GuestAddressSpace for Current {
    type M = Memory;
    type T = Arc<Memory>;

    fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.0.lock().unwrap())
    }
}

fn remapped<E: Engine>(
    engine: impl FnOnce(Arc<FakeImage>) -> E,
) -> (Guest<E, Current>, Arc<FakeImage>, Current) {
    let image = Arc::new(FakeImage::new(contents(8), false));
    let mut current = None;
    let space = |memory| current.insert(Current(Arc::new(Mutex::new(memory)))).clone();
    let engine = engine(Arc::clone(&image));
    let guest = Guest::with_space(8 * 512, &BlockConfig::default(), F_ALL, engine, space);
    (guest, image, current.unwrap())
}

fn late(image: Arc<FakeImage>) -> FakeEngine {
    FakeEngine::new(image, 3).unwrap()
}

fn write<E: Engine>(guest: &mut Guest<E, Current>, sector: u64) -> u64 {
    let bufs = [guest.header(OUT, sector), guest.out(&[7; 512]), guest.room(1)];
    guest.add(&bufs);
    bufs[2].addr
}

#[test]
fn a_request_that_waited_is_carried_out_in_the_memory_that_it_keeps() {
    let (guest, image, current) = remapped(SyncEngine::new);
    let limits = RateLimits { ops: Some(Rate { per_second: 100, burst: 1 }), bytes: None };
    let mut guest = guest.with_rate_limiter(&limits);
    write(&mut guest, 1);
    let status = write(&mut guest, 2);
    let mut wait = guest.worker.run().wait;
    assert!(wait.is_some(), "the second is held back");
    let other = current.replace(9);
    while let Some(left) = wait {
        thread::sleep(left);
        wait = guest.worker.run().wait;
    }
    assert!(image.bytes()[512..1536] == [7; 1024]);
    assert_eq!(guest.get(status, 1), [OK]);
    assert_eq!(other.read_obj::<u8>(GuestAddress(status)).unwrap(), 9);
}

#[test]
fn a_request_that_waited_outlives_the_memory_of_the_batch_that_resumed_it() {
    let (guest, image, current) = remapped(late);
    let limits = RateLimits { ops: Some(Rate { per_second: 100, burst: 1 }), bytes: None };
    let mut guest = guest.with_rate_limiter(&limits);
    write(&mut guest, 1);
    write(&mut guest, 2);
    while guest.worker.queue().in_flight() != 1 || guest.worker.stats().throttled == 0 {
        guest.worker.run();
    }
    drop(current.replace(9));
    while guest.used().len() != 2 {
        guest.worker.run();
        // That of the last batch is unmapped.
        drop(current.replace(9));
        if guest.worker.queue().in_flight() == 0 {
            break;
        }
    }
    assert!(image.bytes()[512..1536] == [7; 1024]);
}

#[test]
fn a_late_answer_goes_where_the_request_came_from() {
    let (mut guest, _, current) = remapped(late);
    let statuses: Vec<u64> = (0..4).map(|sector| write(&mut guest, sector)).collect();
    guest.worker.run();
    let other = current.replace(9);
    guest.finish();
    for status in statuses {
        assert_eq!(guest.get(status, 1), [OK]);
        assert_eq!(other.read_obj::<u8>(GuestAddress(status)).unwrap(), 9);
    }
}
