//! How often a worker reads the clock. Each reading costs about as much as taking a request out of
//! the ring, so a turn has one.
#![cfg(all(feature = "test-utils", target_os = "linux", not(miri)))]

mod common;

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use virtio_blk_dev::fake::FakeImage;
use virtio_blk_dev::{BlockConfig, Poller, QueueWaiter};

thread_local! {
    static READINGS: Cell<u64> = const { Cell::new(0) };
}

/// Stands before the C library's, which `Instant::now` would call.
// SAFETY: the same name and signature as in time.h, and the same result.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    READINGS.set(READINGS.get() + 1);
    // SAFETY: the arguments are the caller's, which the kernel checks.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}

/// A driver that makes one request available each time it is asked whether to stop, until all are.
struct OneByOne {
    memory: Arc<Memory>,
    next: Cell<u16>,
    last: u16,
    slept: u32,
}

impl QueueWaiter for OneByOne {
    fn is_stopped(&self) -> bool {
        if self.next.get() < self.last {
            self.next.set(self.next.get() + 1);
            publish(&self.memory, self.next.get());
        }
        self.slept > 0
    }

    fn wait(&mut self, _: Option<BorrowedFd<'_>>, _: Option<Duration>) -> io::Result<()> {
        self.slept += 1;
        Ok(())
    }
}

#[test]
fn a_turn_reads_the_clock_once() {
    const REQUESTS: u16 = 48;
    let before = READINGS.get();
    let _ = Instant::now();
    assert_eq!(READINGS.get() - before, 1, "the readings are counted");

    let (mut guest, _) = guest_on(
        FakeImage::new(contents(8), false),
        &BlockConfig { queue_size: 256, ..BlockConfig::default() },
        F_ALL,
    );
    for _ in 0..REQUESTS {
        let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
        guest.add(&bufs);
    }
    let (memory, last) = guest.unpublish(REQUESTS);
    let mut waiter = OneByOne { memory, next: Cell::new(0), last, slept: 0 };
    let before = READINGS.get();
    guest.worker.serve(&mut Poller::new(Duration::from_secs(1)), &mut waiter).unwrap();
    let readings = READINGS.get() - before;
    assert_eq!(guest.used().len(), usize::from(REQUESTS));
    let batches = guest.worker.stats().batches;
    assert!(batches >= u64::from(REQUESTS / 2), "{batches} turns: too few to tell anything");
    // Beside a turn's: one at the beginning, and those of the linger before it sleeps, of which
    // there may be some.
    let turns = readings.saturating_sub(batches);
    assert!(turns < batches / 4, "{readings} readings of the clock in {batches} turns");
}
