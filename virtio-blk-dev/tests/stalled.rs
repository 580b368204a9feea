//! For how long a queue's requests have not been answered, as its counters tell.
#![cfg(feature = "test-utils")]

mod common;

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::late::Late;
use common::*;
use virtio_blk_dev::fake::FakeImage;
use virtio_blk_dev::{
    BlockConfig, Completion, Counters, Engine, Io, Rate, RateLimits, Stats, StillInUse, SyncEngine,
};

const LONG: Duration = Duration::from_millis(30);

/// A guest whose storage answers when it is told to.
fn late() -> (Guest<Late>, Late) {
    let image = Arc::new(FakeImage::new(contents(16), false));
    let late = Late::new(&image);
    (Guest::new(16 * 512, &BlockConfig::for_image(&image), F_ALL, late.clone()), late)
}

fn read<E: Engine>(guest: &mut Guest<E>, sector: u64) {
    let bufs = [guest.header(IN, sector), guest.room(512), guest.room(1)];
    guest.add(&bufs);
}

#[test]
fn a_queue_is_stalled_for_as_long_as_nothing_of_it_is_answered() {
    let (mut guest, late) = late();
    let counters = guest.worker.counters();
    assert_eq!(counters.read().stalled, Duration::ZERO);
    let begin = Instant::now();
    read(&mut guest, 1);
    read(&mut guest, 2);
    guest.kick();
    thread::sleep(LONG);
    let stalled = counters.read().stalled;
    assert!(stalled >= LONG && stalled <= begin.elapsed(), "{stalled:?}");
    // Neither another look at the ring nor another request is an answer.
    read(&mut guest, 3);
    guest.kick();
    assert!(counters.read().stalled >= stalled);

    let answered = Instant::now();
    late.end(0, Ok(()));
    guest.kick();
    let stalled = counters.read().stalled;
    assert!(stalled <= answered.elapsed(), "{stalled:?} after an answer");
    thread::sleep(LONG);
    let stalled = counters.read().stalled;
    assert!(stalled >= LONG, "{stalled:?}: two are left");
    // An error is an answer, too.
    late.end(0, Err(libc::EIO));
    late.end(0, Ok(()));
    guest.kick();
    assert_eq!((counters.read().stalled, guest.used().len()), (Duration::ZERO, 3));
}

#[test]
fn the_time_before_the_first_request_does_not_count() {
    let (mut guest, late) = late();
    for _ in 0..2 {
        thread::sleep(LONG);
        let begin = Instant::now();
        read(&mut guest, 1);
        guest.kick();
        let stalled = guest.worker.stats().stalled;
        assert!(stalled > Duration::ZERO && stalled <= begin.elapsed(), "{stalled:?}");
        late.release();
        guest.kick();
        assert_eq!(guest.worker.stats().stalled, Duration::ZERO);
    }
}

#[test]
fn a_request_that_a_limit_delays_is_not_stalled() {
    let (guest, late) = late();
    let bytes = Some(Rate { per_second: 1, burst: 512 });
    let mut guest = guest.with_rate_limiter(&RateLimits { ops: None, bytes });
    read(&mut guest, 1);
    read(&mut guest, 2);
    guest.kick();
    assert!(guest.worker.stats().stalled > Duration::ZERO, "the first is with the storage");
    late.release();
    assert!(guest.kick().wait.is_some());
    thread::sleep(LONG);
    let Stats { in_flight, stalled, .. } = guest.worker.stats();
    assert_eq!((in_flight, stalled), (1, Duration::ZERO));
}

/// A synchronous engine that takes its time, and reads the queue's counters before it returns.
struct Slow {
    image: SyncEngine<FakeImage>,
    counters: Arc<OnceLock<Arc<Counters>>>,
    seen: Arc<Mutex<Vec<Stats>>>,
}

impl Engine for Slow {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        thread::sleep(LONG);
        self.seen.lock().unwrap().push(self.counters.get().unwrap().read());
        self.image.submit(io)
    }

    fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }
}

#[test]
fn a_queue_whose_engine_does_not_return_is_seen_to_be_stalled() {
    let image = Arc::new(FakeImage::new(contents(16), false));
    let (counters, seen) = (Arc::default(), Arc::default());
    let config = BlockConfig::for_image(&image);
    let engine = Slow {
        image: SyncEngine::new(image),
        counters: Arc::clone(&counters),
        seen: Arc::clone(&seen),
    };
    let mut guest = Guest::new(16 * 512, &config, F_ALL | F_CONFIG_WCE, engine);
    counters.set(guest.worker.counters()).unwrap();
    // A batch, a flush alone, and the flush by which the cache is turned off.
    read(&mut guest, 1);
    read(&mut guest, 2);
    guest.kick();
    let answered = Instant::now();
    let bufs = [guest.header(FLUSH, 0), guest.room(1)];
    guest.add(&bufs);
    guest.kick();
    let since = answered.elapsed();
    guest.set_writeback(0);
    guest.kick();
    let seen = seen.lock().unwrap();
    let in_flight: Vec<_> = seen.iter().map(|stats| stats.in_flight).collect();
    assert_eq!(in_flight, [2, 2, 1, 1]);
    assert!(seen.iter().all(|stats| stats.stalled >= LONG), "{seen:?}");
    assert!(seen[2].stalled <= since, "the batch was answered before: {seen:?}");
    let Stats { in_flight, stalled, .. } = guest.worker.stats();
    assert_eq!((in_flight, stalled), (0, Duration::ZERO));
}

/// An engine that answers nothing, and gives nothing back.
#[derive(Default)]
struct Hangs(Vec<Io>);

impl Engine for Hangs {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        self.0.push(io);
        None
    }

    fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        self.0.len()
    }
}

#[test]
fn nobody_waits_for_what_a_worker_that_is_dropped_leaves() {
    let image = FakeImage::new(contents(16), false);
    let mut guest = Guest::new(16 * 512, &BlockConfig::for_image(&image), F_ALL, Hangs::default());
    let counters = guest.worker.counters();
    read(&mut guest, 1);
    guest.kick();
    let StillInUse { .. } = guest.worker.drain().unwrap_err();
    let Stats { in_flight, stalled, .. } = counters.read();
    assert!(in_flight == 1 && stalled > Duration::ZERO, "{stalled:?}");
    drop(guest);
    let Stats { in_flight, stalled, .. } = counters.read();
    assert_eq!((in_flight, stalled), (0, Duration::ZERO));
}

#[test]
fn of_several_queues_the_longest_stall_is_told_and_of_an_interval_the_later() {
    let (mut guest, late) = late();
    let idle = guest.worker.stats();
    read(&mut guest, 1);
    guest.kick();
    let first = guest.worker.stats();
    thread::sleep(Duration::from_millis(1));
    let second = guest.worker.stats();
    assert!(first.stalled < second.stalled);
    for (one, other) in [(&idle, &second), (&second, &idle), (&first, &second), (&second, &first)] {
        let mut sum = one.clone();
        sum += other;
        assert_eq!(sum.stalled, second.stalled);
    }
    assert_eq!(second.since(&first).stalled, second.stalled);
    assert_eq!(idle.since(&first).stalled, Duration::ZERO);
    late.release();
}
