//! Every schedule of a thread that goes to sleep and of those who wake and stop it, and whatever the memory
//! model lets a processor see late. This is the crate's own code on loom's atomics; the eventfd is modelled.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p virtio-worker --lib --release`

use super::*;
use loom::sync::atomic::AtomicU32;
use loom::thread;

#[test]
fn no_wake_up_is_lost_between_two_wakers_and_a_thread_that_goes_to_sleep() {
    loom::model(|| {
        let mut wake = Wake::new().unwrap();
        let notified = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
        let wakers: Vec<_> = notified
            .iter()
            .map(|notified| {
                let (waker, notified) = (wake.waker(), Arc::clone(notified));
                thread::spawn(move || {
                    notified.store(1, Ordering::Relaxed);
                    waker.wake();
                })
            })
            .collect();
        // A sleep that nobody ends is a deadlock, which loom reports.
        while notified.iter().any(|notified| notified.load(Ordering::Relaxed) == 0) {
            wake.wait(None, None).unwrap();
        }
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
    });
}

#[test]
fn a_sleep_that_ends_for_another_reason_loses_no_wake_up() {
    loom::model(|| {
        let mut wake = Wake::new().unwrap();
        let notified = Arc::new(AtomicU32::new(0));
        let (waker, its) = (wake.waker(), Arc::clone(&notified));
        let driver = thread::spawn(move || {
            for nth in 1..=2 {
                its.store(nth, Ordering::Relaxed);
                waker.wake();
            }
        });
        wake.wait(None, Some(Duration::ZERO)).unwrap();
        while notified.load(Ordering::Relaxed) < 2 {
            wake.wait(None, None).unwrap();
        }
        driver.join().unwrap();
    });
}

#[test]
fn a_thread_that_goes_to_sleep_sees_that_it_is_stopped_and_what_came_before() {
    loom::model(|| {
        let (mut waiter, stop) = Waiter::new(Wake::new().unwrap());
        let notified = Arc::new(AtomicU32::new(0));
        let its = Arc::clone(&notified);
        let queue = thread::spawn(move || {
            while !waiter.is_stopped() {
                waiter.wait(None, None).unwrap();
            }
            its.load(Ordering::Relaxed)
        });
        notified.store(1, Ordering::Relaxed);
        stop.waker().wake();
        notified.store(2, Ordering::Relaxed);
        stop.give();
        assert_eq!(queue.join().unwrap(), 2);
    });
}
