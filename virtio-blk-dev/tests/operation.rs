//! What an operator has of a disk: rate limits and statistics.
#![cfg(feature = "test-utils")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use common::*;
use virtio_blk_dev::fake::{FakeEngine, FakeImage};
use virtio_blk_dev::{
    BlockConfig, Engine, Image, Progress, Rate, RateLimits, RequestKind, SyncEngine,
};

/// A guest whose disk is held to `limits`.
fn limited<E: Engine>(
    engine: impl FnOnce(Arc<FakeImage>) -> E,
    limits: &RateLimits,
) -> (Guest<E>, Arc<FakeImage>) {
    let image = Arc::new(FakeImage::new(contents(16), false));
    let config = BlockConfig::default();
    let guest = Guest::new(16 * 512, &config, F_ALL, engine(Arc::clone(&image)));
    (guest.with_rate_limiter(limits), image)
}

fn ops(per_second: u64, burst: u64) -> RateLimits {
    RateLimits { ops: Some(Rate { per_second, burst }), bytes: None }
}

/// Lets `burst` writes of one sector pass, and hardly more; under Miri, which takes a second for a
/// few of them, none.
fn no_more_than(burst: u64) -> RateLimits {
    if cfg!(miri) {
        RateLimits { ops: None, bytes: Some(Rate { per_second: 1, burst: burst * 512 }) }
    } else {
        ops(1, burst)
    }
}

/// Makes `count` writes available, of one sector each.
fn writes<E: Engine>(guest: &mut Guest<E>, count: u8) -> Vec<u16> {
    (0..count)
        .map(|nth| {
            let data = guest.out(&[0x80 | nth; 512]);
            let bufs = [guest.header(OUT, nth.into()), data, guest.room(1)];
            guest.add(&bufs)
        })
        .collect()
}

#[test]
#[cfg_attr(miri, ignore = "Miri is slower than the limit")]
fn a_limit_holds_requests_back_and_tells_for_how_long() {
    let (mut guest, image) = limited(SyncEngine::new, &ops(1, 2));
    writes(&mut guest, 5);
    let Progress { processed, more, wait } = guest.worker.run();
    assert_eq!((processed, more), (2, false), "running again at once is of no use");
    let wait = wait.unwrap();
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    assert_eq!(guest.used().len(), 2);
    let again = guest.worker.run();
    assert_eq!((again.processed, again.more), (0, false));
    assert!(again.wait.unwrap() <= wait);
    assert!(guest.worker.stats().throttled >= 1);
    assert_eq!(image.bytes()[2 * 512..], contents(16)[2 * 512..]);
}

#[test]
fn a_drain_leaves_what_a_limit_holds_back_to_the_driver_and_takes_no_more() {
    let (mut guest, image) = limited(SyncEngine::new, &no_more_than(1));
    let heads = writes(&mut guest, 3);
    assert_eq!(guest.worker.run().processed, 1);
    assert_eq!(guest.worker.queue().in_flight(), 1);
    assert_eq!(guest.worker.stats().in_flight, 1, "taken and not answered");
    guest.worker.drain().unwrap();
    assert_eq!(guest.worker.queue().in_flight(), 0);
    assert_eq!(guest.worker.stats().in_flight, 0);
    assert_eq!(guest.worker.queue().state().next_avail, 1, "it is taken again");
    let used: Vec<u16> = guest.used().into_iter().map(|(head, _)| head).collect();
    assert_eq!(used, heads[..1]);
    assert!(image.bytes()[512..] == contents(16)[512..]);
    assert!(guest.worker.run().wait.is_some(), "and the limit holds on");
}

#[test]
fn a_request_that_a_limit_held_back_is_served_after_a_drain() {
    let limits = ops(if cfg!(miri) { 10 } else { 100 }, 1);
    let (mut guest, image) = limited(SyncEngine::new, &limits);
    let heads = writes(&mut guest, 2);
    guest.worker.run();
    guest.worker.drain().unwrap();
    while let Some(wait) = guest.worker.run().wait {
        thread::sleep(wait);
    }
    let used: Vec<u16> = guest.used().into_iter().map(|(head, _)| head).collect();
    assert_eq!(used, heads);
    assert!(image.bytes()[512..1024] == [0x81; 512]);
}

#[test]
fn no_reset_gives_a_request_free_of_the_limit() {
    let (mut guest, image) = limited(SyncEngine::new, &no_more_than(1));
    writes(&mut guest, 1);
    guest.worker.run();
    for _ in 0..8 {
        guest.restart(F_ALL);
        let params = guest.transport.device().params();
        guest.replace_worker(SyncEngine::new(Arc::clone(&image)), &params);
        guest.free_all();
        let bufs = [guest.header(OUT, 5), guest.out(&[9; 512]), guest.room(1)];
        guest.add(&bufs);
        assert!(guest.worker.run().wait.is_some());
    }
    guest.worker.drain().unwrap();
    assert!(image.bytes()[5 * 512..] == contents(16)[5 * 512..]);
}

#[test]
fn zeroes_and_erasures_cost_bytes_and_discards_none() {
    for (kind, costs) in [(WRITE_ZEROES, true), (SECURE_ERASE, true), (DISCARD, false)] {
        let image = Arc::new(FakeImage::new(contents(16), false).with_commands(COMMANDS));
        let config = BlockConfig::for_image(&*image);
        let features = F_ALL | F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE;
        let guest = Guest::new(16 * 512, &config, features, SyncEngine::new(Arc::clone(&image)));
        let bytes = Some(Rate { per_second: 1, burst: 4 * 512 });
        let mut guest = guest.with_rate_limiter(&RateLimits { ops: None, bytes });
        let list = ranges(&[(1, 2, 0), (9, 1, 0)]);
        for _ in 0..3 {
            let bufs = [guest.header(kind, 0), guest.out(&list), guest.room(1)];
            guest.add(&bufs);
        }
        let progress = guest.kick();
        assert_eq!(
            (progress.processed, progress.wait.is_some()),
            (if costs { 1 } else { 3 }, costs)
        );
        assert_eq!(guest.worker.stats().throttled, u64::from(costs), "type {kind}");
    }
}

#[test]
fn a_list_is_read_once_however_long_it_waits() {
    let image = Arc::new(FakeImage::new(contents(16), false).with_commands(COMMANDS));
    let config = BlockConfig::for_image(&*image);
    let guest =
        Guest::new(16 * 512, &config, F_ALL | F_WRITE_ZEROES, SyncEngine::new(Arc::clone(&image)));
    let bytes = Some(Rate { per_second: 5120, burst: 1 });
    let mut guest = guest.with_rate_limiter(&RateLimits { ops: None, bytes });
    let list = guest.out(&ranges(&[(1, 1, 0)]));
    let bufs = [guest.header(WRITE_ZEROES, 0), list, guest.room(1)];
    guest.add(&bufs);
    guest.add(&bufs);
    assert_eq!(guest.kick().processed, 1);
    guest.memory_write(&ranges(&[(2, 14, 0)]), list.addr);
    while let Some(wait) = guest.worker.run().wait {
        thread::sleep(wait);
    }
    assert!(image.bytes()[1024..] == contents(16)[1024..], "what was paid for is what is zeroed");
}

#[test]
#[cfg_attr(miri, ignore = "Miri is slower than the limit")]
fn a_request_that_waits_is_counted_once() {
    let (mut guest, _) = limited(SyncEngine::new, &ops(1, 1));
    writes(&mut guest, 4);
    for _ in 0..10 {
        guest.worker.run();
    }
    assert_eq!(guest.worker.stats().throttled, 1);
}

#[test]
#[cfg_attr(miri, ignore = "Miri is slower than the limit")]
fn nothing_is_lost_and_the_order_is_kept_when_the_waits_are_waited() {
    let (mut guest, image) = limited(SyncEngine::new, &ops(1000, 2));
    let heads = writes(&mut guest, 12);
    let mut waits = 0;
    loop {
        let Progress { more, wait, .. } = guest.worker.run();
        match wait {
            Some(wait) => {
                waits += 1;
                thread::sleep(wait);
            }
            None if !more => break,
            None => {}
        }
    }
    assert!(waits >= 1);
    let used: Vec<u16> = guest.used().into_iter().map(|(head, _)| head).collect();
    assert_eq!(used, heads);
    for nth in 0..12 {
        assert_eq!(image.bytes()[nth * 512..][..512], [0x80 | nth as u8; 512]);
    }
    assert_eq!(guest.worker.stats().in_flight, 0);
}

#[test]
fn bytes_are_limited_by_what_is_read_and_written() {
    let bytes = Some(Rate { per_second: if cfg!(miri) { 1 } else { 512 }, burst: 2 * 512 });
    let (mut guest, _) = limited(SyncEngine::new, &RateLimits { ops: None, bytes });
    for _ in 0..8 {
        let bufs = [guest.header(FLUSH, 0), guest.room(1)];
        guest.add(&bufs);
    }
    assert_eq!(guest.kick(), Progress { processed: 8, more: false, wait: None });
    writes(&mut guest, 1);
    let bufs = [guest.header(IN, 0), guest.room(512), guest.room(1)];
    guest.add(&bufs);
    writes(&mut guest, 1);
    let progress = guest.kick();
    assert_eq!(progress.processed, 2);
    assert!(progress.wait.is_some());
}

#[test]
fn those_in_flight_are_drained_beside_a_held_request() {
    let engine = |image| FakeEngine::new(image as Arc<dyn Image>, 7).unwrap();
    let (mut guest, image) = limited(engine, &no_more_than(6));
    writes(&mut guest, 9);
    guest.worker.run();
    let stats = guest.worker.stats();
    assert_eq!(stats.in_flight, u64::from(guest.worker.queue().in_flight()));
    guest.worker.drain().unwrap();
    assert_eq!(guest.used().len(), 6);
    assert_eq!((guest.worker.stats().in_flight, guest.worker.queue().in_flight()), (0, 0));
    assert!(image.bytes()[6 * 512..] == contents(16)[6 * 512..]);
}

#[test]
fn each_answered_request_has_a_latency_and_none_is_in_flight_then() {
    let image = Arc::new(FakeImage::new(contents(16), false).with_commands(COMMANDS));
    let engine = FakeEngine::new(Arc::clone(&image) as Arc<dyn Image>, 3).unwrap();
    let config = BlockConfig::for_image(&*image);
    let features = F_ALL | F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE;
    let mut guest = Guest::new(16 * 512, &config, features, engine);
    let counters = guest.worker.counters();
    let list = ranges(&[(1, 1, 0), (4, 1, 0)]);
    for kind in [IN, OUT, FLUSH, GET_ID, GET_LIFETIME, DISCARD, WRITE_ZEROES, SECURE_ERASE, 77] {
        for _ in 0..2 {
            let data = match kind {
                IN | GET_ID | GET_LIFETIME => guest.room(512),
                OUT => guest.out(&[7; 512]),
                _ => guest.out(&list),
            };
            let bufs = [guest.header(kind, 0), data, guest.room(1)];
            guest.add(&bufs);
        }
    }
    let bufs = [guest.header(OUT, 99), guest.room(1)];
    guest.add(&bufs);
    guest.finish();
    assert_eq!(guest.used().len(), 19);
    let stats = counters.read();
    assert_eq!((stats.in_flight, stats.requests(), stats.host_errors), (0, 19, 0));
    for kind in RequestKind::ALL {
        let expected = if kind == RequestKind::Write { 3 } else { 2 };
        assert_eq!(stats[kind].requests, expected, "{kind:?}");
        assert_eq!(stats[kind].latency.count(), expected, "{kind:?}");
    }
    let bytes = |kind| stats[kind].bytes;
    assert_eq!((bytes(RequestKind::Read), bytes(RequestKind::Write)), (1024, 1024));
    assert_eq!((bytes(RequestKind::Discard), bytes(RequestKind::WriteZeroes)), (2048, 2048));
    assert_eq!(stats[RequestKind::Write].errors, 1);
    assert_eq!(stats[RequestKind::Other].errors, 2);
    assert_eq!(stats[RequestKind::GetLifetime].errors, 2);
}

#[test]
fn batches_and_the_interrupts_that_nobody_wanted_are_counted() {
    let (mut guest, _) = guest(16, &BlockConfig::default(), F_ALL);
    for round in 1..4u64 {
        writes(&mut guest, 4);
        guest.kick();
        let stats = guest.worker.stats();
        // The driver has not moved `used_event` on since the first.
        assert_eq!((stats.batches, stats.interrupts_suppressed), (round, round - 1));
        assert_eq!(guest.raised.load(Ordering::Relaxed), 1);
    }
    assert_eq!(guest.used().len(), 12);
    writes(&mut guest, 1);
    guest.kick();
    let stats = guest.worker.stats();
    assert_eq!((stats.batches, stats.interrupts_suppressed), (4, 2));
    guest.kick();
    assert_eq!(guest.worker.stats().batches, 4, "nothing to publish is no batch");
}

#[test]
fn a_worker_without_a_limit_never_waits() {
    let (mut guest, _) = guest(16, &BlockConfig::default(), F_ALL);
    writes(&mut guest, 16);
    assert_eq!(guest.worker.run(), Progress { processed: 16, more: false, wait: None });
    assert_eq!(guest.worker.stats().throttled, 0);
}
