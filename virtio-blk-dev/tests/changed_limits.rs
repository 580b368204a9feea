//! Rate limits that are set anew while a disk is in use.
#![cfg(feature = "test-utils")]

mod common;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use virtio_blk_dev::{BlockConfig, Poller, QueueWaiter, Rate, RateLimiter, RateLimits};

/// The burst, and nothing more within a test.
fn bytes(burst: u64) -> RateLimits {
    RateLimits { ops: None, bytes: Some(Rate { per_second: 1, burst }) }
}

fn guest_with(limiter: &Arc<RateLimiter>) -> Guest {
    guest(16, &BlockConfig::default(), F_ALL).0.with_shared_limiter(limiter)
}

fn reads(guest: &mut Guest, count: u64) {
    for sector in 0..count {
        let bufs = [guest.header(IN, sector), guest.room(512), guest.room(1)];
        guest.add(&bufs);
    }
}

#[test]
fn a_limit_that_is_set_on_a_disk_without_one_holds_at_once() {
    let limiter = Arc::new(RateLimiter::new(&RateLimits::default()));
    let mut guest = guest_with(&limiter);
    reads(&mut guest, 3);
    assert_eq!(guest.kick().processed, 3);
    limiter.set(&bytes(512));
    reads(&mut guest, 2);
    let progress = guest.kick();
    assert_eq!((progress.processed, progress.wait.is_some()), (1, true));
}

#[test]
fn a_delayed_request_starts_once_the_limit_is_lifted() {
    let limiter = Arc::new(RateLimiter::new(&bytes(512)));
    let mut guest = guest_with(&limiter);
    reads(&mut guest, 3);
    assert!(guest.kick().wait.unwrap() > Duration::from_secs(400));
    limiter.set(&RateLimits::default());
    let progress = guest.kick();
    assert_eq!((progress.processed, progress.wait), (2, None));
    assert_eq!((guest.used().len(), guest.worker.stats().throttled), (3, 1));
}

#[test]
fn a_delayed_request_has_the_time_of_the_limits_that_are_set() {
    let limiter = Arc::new(RateLimiter::new(&bytes(512)));
    let [mut guest, mut other] = [guest_with(&limiter), guest_with(&limiter)];
    reads(&mut guest, 2);
    reads(&mut other, 1);
    assert!(guest.kick().wait.unwrap() > Duration::from_secs(400));
    assert!(other.kick().wait.unwrap() > Duration::from_secs(900), "after the first queue's");
    let ops = Some(Rate { per_second: 1, burst: 1 });
    limiter.set(&RateLimits { ops, bytes: None });
    // One takes the credit that the new limits begin with.
    assert_eq!(other.kick().processed, 1);
    let wait = guest.kick().wait.unwrap();
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    assert_eq!(
        guest.worker.stats().throttled,
        1,
        "it is one delayed request, though of two limits"
    );
}

#[test]
fn a_drain_after_a_change_gives_back_what_was_reserved_of_the_new_limits() {
    let limiter = Arc::new(RateLimiter::new(&bytes(512)));
    let [mut guest, mut other] = [guest_with(&limiter), guest_with(&limiter)];
    reads(&mut guest, 2);
    reads(&mut other, 1);
    guest.kick();
    limiter.set(&bytes(1024));
    assert!(other.kick().wait.is_none());
    reads(&mut other, 1);
    assert!(other.kick().wait.is_none(), "the credit of both");
    assert!(guest.kick().wait.unwrap() > Duration::from_secs(400));
    guest.worker.drain().unwrap();
    reads(&mut other, 1);
    let wait = other.kick().wait.unwrap();
    assert!(wait <= Duration::from_secs(512), "{wait:?}");
}

/// Sets limits at the first sleep, which it then ends as a wake-up does; stops at the second.
struct Sets<'a> {
    limiter: &'a RateLimiter,
    sleeps: Vec<Option<Duration>>,
}

impl QueueWaiter for Sets<'_> {
    fn is_stopped(&self) -> bool {
        self.sleeps.len() > 1
    }

    fn wait(&mut self, _: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> io::Result<()> {
        self.limiter.set(&RateLimits::default());
        self.sleeps.push(timeout);
        Ok(())
    }
}

#[test]
fn a_thread_that_is_woken_after_a_change_no_longer_sleeps_for_the_old_limits() {
    let limiter = Arc::new(RateLimiter::new(&bytes(512)));
    let mut guest = guest_with(&limiter);
    reads(&mut guest, 3);
    let mut waiter = Sets { limiter: &limiter, sleeps: Vec::new() };
    guest.worker.serve(&mut Poller::new(Duration::ZERO), &mut waiter).unwrap();
    let [delayed, idle] = waiter.sleeps[..] else { panic!("{:?}", waiter.sleeps) };
    assert!(delayed.unwrap() > Duration::from_secs(400));
    assert_eq!((idle, guest.used().len()), (None, 3));
}
