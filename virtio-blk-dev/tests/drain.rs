//! What a worker leaves behind: nothing, or word of it.
#![cfg(all(feature = "test-utils", not(miri)))]

mod common;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use common::*;
use tempfile::NamedTempFile;
use virtio_blk_dev::{
    BlockConfig, Completion, Engine, EngineFault, Image, Io, Poller, QueueWaiter, RawImage,
    ServeError, StillInUse, UringConfig, UringEngine,
};

/// An engine whose operations don't come back, and that knows why.
#[derive(Default)]
struct Keeps {
    kept: Vec<Io>,
    told: bool,
}

impl Engine for Keeps {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        self.kept.push(io);
        None
    }

    fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        self.kept.len()
    }

    fn wait(&mut self) -> Result<(), StillInUse> {
        Err(StillInUse::new(self.kept.len(), None))
    }

    fn take_fault(&mut self) -> Option<EngineFault> {
        let error = io::Error::from_raw_os_error(libc::EPERM);
        (!std::mem::replace(&mut self.told, true)).then(|| EngineFault::new(self.kept.len(), error))
    }
}

fn guest_of_two_reads() -> Guest<Keeps> {
    let mut guest = Guest::new(8 * 512, &BlockConfig::default(), F_ALL, Keeps::default());
    let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
    guest.add(&bufs);
    guest.add(&bufs);
    guest
}

#[test]
fn a_drain_that_leaves_memory_in_use_says_so() {
    let mut guest = guest_of_two_reads();
    guest.worker.run();
    for _ in 0..2 {
        assert_eq!(guest.worker.drain().unwrap_err().operations, 2);
    }
    assert!(guest.used().is_empty());
    assert_eq!(guest.worker.into_queue().err().expect("an error").operations, 2);
}

/// Stops as soon as there is nothing to do, and keeps what it hears.
#[derive(Default)]
struct Waiter {
    stopped: bool,
    faults: Vec<usize>,
}

impl QueueWaiter for Waiter {
    fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn wait(&mut self, _: Option<BorrowedFd<'_>>, _: Option<Duration>) -> io::Result<()> {
        self.stopped = true;
        Ok(())
    }

    fn on_engine_fault(&mut self, fault: &EngineFault) {
        self.faults.push(fault.held);
    }
}

#[test]
fn who_serves_a_queue_hears_once_of_its_broken_engine_and_of_memory_in_use() {
    let mut guest = guest_of_two_reads();
    let mut waiter = Waiter::default();
    let served = guest.worker.serve(&mut Poller::new(Duration::ZERO), &mut waiter);
    assert!(matches!(served, Err(ServeError::StillInUse(StillInUse { operations: 2, .. }))));
    assert_eq!(waiter.faults, [2]);
}

#[test]
fn the_workers_own_flush_ends_also_when_the_next_request_is_done_at_once() {
    for inline in [true, false] {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents(64)).unwrap();
        let image = Arc::new(RawImage::open(file.path(), false).unwrap());
        let config = UringConfig { inline, ..UringConfig::default() };
        let engine = match UringEngine::with_config(Arc::clone(&image), &config) {
            Ok(engine) => engine,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let features = F_ALL | F_CONFIG_WCE;
        let mut guest = Guest::new(image.capacity(), &BlockConfig::default(), features, engine);
        // In the page cache, and known to be done without the ring.
        assert_eq!(guest.request(IN, 1, &[], 512).status, OK);
        for _ in 0..8 {
            guest.set_writeback(1);
            guest.worker.run();
            guest.set_writeback(0);
            let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
            guest.add(&bufs);
            guest.worker.run();
            while guest.worker.stats().in_flight > 0 {
                let fd = guest.worker.as_fd().unwrap().as_raw_fd();
                let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
                // SAFETY: one pollfd, which outlives the call.
                let ready = unsafe { libc::poll(&raw mut poll, 1, 10_000) };
                assert_eq!(ready, 1, "a flush is in flight, and nobody tells of it");
                guest.worker.run();
            }
            guest.worker.drain().unwrap();
            assert_eq!(guest.used().len(), 1);
        }
    }
}
