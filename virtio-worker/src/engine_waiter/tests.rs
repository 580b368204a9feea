use std::fs::File;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::wake::Wake;

const LONG: Option<Duration> = Some(Duration::from_secs(60));
const SOON: Option<Duration> = Some(Duration::from_millis(50));

#[test]
fn completions_of_an_engine_end_a_sleep_once() {
    let engine = eventfd(0, EventfdFlags::empty()).unwrap();
    let (mut waiter, _stop) = Waiter::new(Wake::new().unwrap());
    let mut waiter = EngineWaiter::new(&mut waiter, Some(engine.as_fd()));
    let begin = Instant::now();
    rustix::io::write(&engine, &1_u64.to_ne_bytes()).unwrap();
    waiter.wait(Some(engine.as_fd()), LONG).unwrap();
    assert!(Some(begin.elapsed()) < LONG);
    // It is still readable: the thread has taken the completions, not the descriptor's count.
    let begin = Instant::now();
    waiter.wait(Some(engine.as_fd()), SOON).unwrap();
    assert!(Some(begin.elapsed()) >= SOON);
}

#[test]
fn an_engine_whose_descriptor_can_not_be_watched_is_polled() {
    // epoll takes no regular file (EPERM), and poll says that it is readable.
    let engine = File::open("/proc/self/exe").unwrap();
    let (mut waiter, _stop) = Waiter::new(Wake::new().unwrap());
    let mut waiter = EngineWaiter::new(&mut waiter, Some(engine.as_fd()));
    let begin = Instant::now();
    waiter.wait(Some(engine.as_fd()), LONG).unwrap();
    assert!(Some(begin.elapsed()) < LONG);
    let begin = Instant::now();
    waiter.wait(None, SOON).unwrap();
    assert!(Some(begin.elapsed()) >= SOON, "nothing is in flight in it");
}

#[test]
fn a_wait_for_an_engine_that_completes_synchronously_ends_by_the_stop() {
    let (mut waiter, stop) = Waiter::new(Wake::new().unwrap());
    let mut waiter = EngineWaiter::new(&mut waiter, None);
    assert!(!waiter.is_stopped());
    stop.give();
    assert!(waiter.is_stopped());
    waiter.wait(None, None).unwrap();
}
