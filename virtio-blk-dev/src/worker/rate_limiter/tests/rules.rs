use std::sync::Arc;
use std::time::Instant;

use crate::worker::limiter_view::LimiterView;
use crate::worker::rate_limiter::RateLimiter;
use crate::{Rate, RateLimits};

fn ops(per_second: u64, burst: u64) -> RateLimits {
    RateLimits { ops: Some(Rate { per_second, burst }), bytes: None }
}

fn bytes(per_second: u64, burst: u64) -> RateLimits {
    RateLimits { ops: None, bytes: Some(Rate { per_second, burst }) }
}

fn view(limiter: &Arc<RateLimiter>) -> LimiterView {
    LimiterView::new(Arc::clone(limiter))
}

/// Whether a request of `bytes` bytes may start at once.
fn passes(view: &LimiterView, bytes: u64) -> bool {
    view.reserve(Instant::now(), bytes).is_none()
}

#[test]
fn a_limiter_without_limits_lets_everything_pass() {
    for view in [view(&Arc::new(RateLimiter::new(&RateLimits::default()))), LimiterView::default()]
    {
        assert!(!view.is_limited());
        assert!((0..100).all(|_| passes(&view, u64::MAX)));
    }
}

#[test]
fn the_limits_are_those_that_were_set_last() {
    let limiter = RateLimiter::new(&RateLimits::default());
    assert_eq!(limiter.limits(), RateLimits::default());
    let rate = Rate { per_second: 7, burst: 8 };
    let both = RateLimits { ops: Some(rate), bytes: Some(Rate { per_second: 9, burst: 10 }) };
    for limits in [ops(1, 2), bytes(3, 4), both, RateLimits::default()] {
        limiter.set(&limits);
        assert_eq!(limiter.limits(), limits);
    }
}

#[test]
fn each_worker_takes_over_what_was_set_once() {
    let limiter = Arc::new(RateLimiter::new(&RateLimits::default()));
    let mut views = [view(&limiter), view(&limiter)];
    assert!(views.iter_mut().all(|view| !view.refresh()));
    limiter.set(&ops(1, 1));
    limiter.set(&ops(2, 1));
    for view in &mut views {
        assert!(!view.is_limited(), "not before it looks");
        assert!(view.refresh() && view.is_limited());
        assert!(!view.refresh());
    }
    limiter.set(&RateLimits::default());
    assert!(views.iter_mut().all(|view| view.refresh() && !view.is_limited()));
}

#[test]
fn limits_that_are_set_begin_with_full_credit_that_the_workers_share() {
    let limiter = Arc::new(RateLimiter::new(&ops(1, 1)));
    let mut views = [view(&limiter), view(&limiter)];
    let delayed = (0..100).filter(|_| !passes(&views[0], 0)).count();
    assert_eq!(delayed, 99, "the old ones are used up for minutes");
    limiter.set(&ops(1, 3));
    assert!(views.iter_mut().all(LimiterView::refresh));
    assert!(passes(&views[0], 0) && passes(&views[1], 0) && passes(&views[0], 0));
    assert!(!passes(&views[1], 0) && !passes(&views[0], 0));
}

#[test]
fn setting_the_limits_that_are_in_force_gives_no_credit() {
    let limiter = Arc::new(RateLimiter::new(&ops(1, 1)));
    let mut view = view(&limiter);
    assert!(passes(&view, 0));
    limiter.set(&ops(1, 1));
    assert!(!view.refresh());
    assert!(!passes(&view, 0));
}

#[test]
fn a_reservation_of_old_limits_that_is_given_back_is_no_credit_of_the_new_ones() {
    let limiter = Arc::new(RateLimiter::new(&bytes(1, 512)));
    let mut slow = view(&limiter);
    let mut fast = view(&limiter);
    assert!(passes(&slow, 512));
    let old = slow.reserve(Instant::now(), 1 << 30).unwrap();
    limiter.set(&bytes(1, 512));
    limiter.set(&bytes(1, 1024));
    assert!(fast.refresh());
    assert!(passes(&fast, 1024) && !passes(&fast, 1024));
    assert_eq!(old.give_back(), 1 << 30);
    assert!(slow.refresh());
    assert!(!passes(&slow, 512) && !passes(&fast, 1));
}

#[test]
fn limits_may_be_set_while_workers_use_them() {
    let limiter = Arc::new(RateLimiter::new(&RateLimits::default()));
    let rounds = if cfg!(miri) { 5 } else { 1000 };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut view = view(&limiter);
            scope.spawn(move || {
                for _ in 0..rounds {
                    let reservation = view.reserve(Instant::now(), 4096);
                    view.refresh();
                    if let Some(reservation) = reservation {
                        reservation.give_back();
                    }
                }
            });
        }
        for nth in 1..=rounds {
            limiter.set(&[ops(nth, 1), RateLimits::default(), bytes(nth, 1)][nth as usize % 3]);
        }
    });
    limiter.set(&ops(1, 2));
    let mut view = view(&limiter);
    assert!(!view.refresh() && passes(&view, 0) && passes(&view, 0) && !passes(&view, 0));
}
