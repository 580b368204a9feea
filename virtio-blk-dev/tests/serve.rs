//! What the thread that serves a queue hears, and when.
#![cfg(feature = "test-utils")]

mod common;

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use virtio_blk_dev::fake::FakeImage;
use virtio_blk_dev::{BlockConfig, Poller, QueueWaiter, SyncEngine};
use virtio_dev::RingFault;

/// Has the driver break its ring when `is_stopped` is asked for the `breaks_at`-th time, and stops at
/// the first wait.
struct Breaks<'a> {
    memory: &'a Memory,
    breaks_at: u32,
    asked: Cell<u32>,
    faults: Vec<RingFault>,
    faults_before_wait: Option<usize>,
}

impl QueueWaiter for Breaks<'_> {
    fn is_stopped(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        if self.asked.get() == self.breaks_at {
            // More buffers made available than the queue has room for.
            publish(self.memory, 1000);
        }
        self.faults_before_wait.is_some()
    }

    fn wait(&mut self, _: Option<BorrowedFd<'_>>, _: Option<Duration>) -> io::Result<()> {
        self.faults_before_wait = Some(self.faults.len());
        Ok(())
    }

    fn on_broken(&mut self, fault: RingFault) {
        self.faults.push(fault);
    }
}

/// A poller that has spun in vain so often that it sleeps without another look at the ring.
fn never_spins() -> Poller {
    let mut poller = Poller::new(Duration::ZERO);
    let now = Instant::now();
    while poller.idle(now) {
        poller.sleeps(now);
    }
    poller.sleeps(now);
    assert!(!poller.idle(now));
    poller
}

#[test]
fn a_ring_that_breaks_at_any_time_is_told_of_once_before_the_thread_sleeps() {
    // 1: before the first look at the ring; 2: between the last of a batch and that before the sleep.
    for breaks_at in 1..=2 {
        let image = Arc::new(FakeImage::new(contents(8), false));
        let config = BlockConfig::for_image(&*image);
        let mut guest = Guest::new(8 * 512, &config, F_ALL, SyncEngine::new(image));
        let memory = Arc::clone(&guest.memory);
        let mut waiter = Breaks {
            memory: &memory,
            breaks_at,
            asked: Cell::new(0),
            faults: Vec::new(),
            faults_before_wait: None,
        };
        guest.worker.serve(&mut never_spins(), &mut waiter).unwrap();
        assert_eq!(waiter.faults_before_wait, Some(1), "broken at {breaks_at}");
        assert_eq!(waiter.faults.len(), 1, "broken at {breaks_at}");
    }
}
