//! Every schedule of workers that use limits and of the thread that sets them anew, and whatever the memory model
//! lets a processor see late. This is the crate's own code on loom's atomics; the wake-up is modelled.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p virtio-blk-dev --lib --release rate_limiter`

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::worker::limiter_view::LimiterView;
use crate::worker::rate_limiter::RateLimiter;
use crate::{Rate, RateLimits};

fn ops(burst: u64) -> RateLimits {
    RateLimits { ops: Some(Rate { per_second: 1, burst }), bytes: None }
}

/// The requests, of `asked`, that a worker starts at `now`. It drains at the end, as before a reset.
fn work(view: &mut LimiterView, now: Instant, asked: u64) -> u64 {
    (0..asked)
        .map(|_| match view.reserve(now, 0) {
            None => 1,
            Some(reservation) => {
                reservation.give_back();
                0
            }
        })
        .sum()
}

#[test]
fn a_worker_that_is_woken_after_a_change_has_the_new_limits() {
    loom::model(|| {
        let limiter = Arc::new(RateLimiter::new(&ops(1)));
        let woken = Arc::new(AtomicBool::new(false));
        let mut view = LimiterView::new(Arc::clone(&limiter));
        let its_woken = Arc::clone(&woken);
        let worker = thread::spawn(move || {
            view.refresh();
            // As `Wake::wait` does: the look for work comes after the wake-up is taken.
            while !its_woken.swap(false, Ordering::AcqRel) {
                thread::yield_now();
            }
            view.refresh();
            assert!(!view.is_limited(), "it would sleep for the time of the old limits");
        });
        limiter.set(&RateLimits::default());
        woken.swap(true, Ordering::AcqRel);
        worker.join().unwrap();
    });
}

#[test]
fn a_worker_with_old_limits_and_one_with_new_ones_start_no_more_than_each_allows() {
    loom::model(|| {
        let now = Instant::now() + Duration::from_secs(1);
        let limiter = Arc::new(RateLimiter::new(&ops(1)));
        let mut view = LimiterView::new(Arc::clone(&limiter));
        let worker = thread::spawn(move || {
            let old = work(&mut view, now, 2);
            let is_new = view.refresh();
            let next = work(&mut view, now, 1);
            if is_new { (old, next) } else { (old + next, 0) }
        });
        limiter.set(&ops(2));
        let mut view = LimiterView::new(limiter);
        let first = work(&mut view, now, 1);
        let (old, new) = worker.join().unwrap();
        assert_eq!(old, 1, "what is given back of the new limits is no credit of the old ones");
        assert_eq!(first + new + work(&mut view, now, 3), 2, "nor the other way round");
    });
}
