//! Long requests, which a worker can be told to end, and workers that end before their time.
#![cfg(feature = "test-utils")]

mod common;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use virtio_blk_dev::fake::{FakeEngine, FakeImage};
use virtio_blk_dev::{
    BlockConfig, Canceller, Completion, Engine, Image, Io, Operation, Poller, QueueWaiter,
    ServeError, SyncEngine,
};

const F_RANGES: u64 = F_ALL | F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE;
const SECTORS: u64 = 64;
const KINDS: [u32; 3] = [DISCARD, WRITE_ZEROES, SECURE_ERASE];

/// What an engine was asked for: offset and length of each range, and (0, 0) for anything else.
type Seen = Arc<Mutex<Vec<(u64, u64)>>>;

/// An engine that notes what it is given, and has a worker cancelled with one of them.
struct Watched {
    inner: SyncEngine<FakeImage>,
    seen: Seen,
    cancel_at: Option<(usize, Arc<Mutex<Option<Canceller>>>)>,
}

impl Engine for Watched {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        let mut seen = self.seen.lock().unwrap();
        seen.push(match io.operation() {
            Operation::Discard | Operation::WriteZeroes { .. } | Operation::SecureErase => {
                (io.offset(), io.remaining())
            }
            _ => (0, 0),
        });
        if let Some((count, canceller)) = &self.cancel_at
            && seen.len() == *count
        {
            canceller.lock().unwrap().as_ref().unwrap().cancel();
        }
        self.inner.submit(io)
    }

    fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }
}

/// A guest whose engine has the worker cancelled with the operation of this number.
fn watched(cancel_at: Option<usize>) -> (Guest<Watched>, Arc<FakeImage>, Seen) {
    let image = Arc::new(FakeImage::new(contents(SECTORS), false).with_commands(COMMANDS));
    let (seen, canceller) = (Seen::default(), Arc::<Mutex<Option<Canceller>>>::default());
    let engine = Watched {
        inner: SyncEngine::new(Arc::clone(&image)),
        seen: Arc::clone(&seen),
        cancel_at: cancel_at.map(|count| (count, Arc::clone(&canceller))),
    };
    let config = BlockConfig::for_image(&*image);
    let guest = Guest::new(SECTORS * 512, &config, F_RANGES, engine);
    *canceller.lock().unwrap() = Some(guest.worker.canceller());
    (guest, image, seen)
}

/// Makes a request with this list available; where its status goes.
fn list<E: Engine>(guest: &mut Guest<E>, kind: u32, list: &[(u64, u32, u32)]) -> u64 {
    let bufs = [guest.header(kind, 0), guest.out(&ranges(list)), guest.room(1)];
    guest.add(&bufs);
    bufs[2].addr
}

#[test]
fn no_range_is_begun_after_a_cancel_and_no_request_with_one_left_is_acknowledged() {
    for kind in KINDS {
        for cancel_at in 1..6 {
            let (mut guest, _, seen) = watched(Some(cancel_at));
            let statuses: Vec<u64> = (0..4)
                .map(|_| list(&mut guest, kind, &[(1, 1, 0), (3, 1, 0), (5, 1, 0)]))
                .collect();
            let read = [guest.header(IN, 1), guest.room(512), guest.room(1)];
            guest.add(&read);
            guest.worker.run();
            guest.worker.drain().unwrap();
            assert_eq!(guest.used().len(), 5, "all are answered");
            let later = seen.lock().unwrap().split_off(cancel_at);
            assert!(later.iter().all(|range| *range == (0, 0)), "type {kind}: {later:?}");
            for status in statuses {
                assert_eq!(guest.get(status, 1), [IOERR], "type {kind}, {cancel_at}");
            }
            assert_eq!(guest.get(read[2].addr, 1), [OK], "what moves data isn't concerned");
            assert_eq!(guest.worker.stats().host_errors, 0);
        }
    }
}

#[test]
fn a_request_that_was_done_when_the_worker_was_cancelled_is_acknowledged() {
    let (mut guest, image, _) = watched(Some(2));
    let status = list(&mut guest, WRITE_ZEROES, &[(1, 1, 0), (3, 1, 0)]);
    guest.worker.run();
    assert_eq!(guest.get(status, 1), [OK]);
    assert!(image.bytes()[3 * 512..4 * 512] == [0; 512]);
}

#[test]
fn a_queue_that_only_pauses_carries_its_lists_out_to_the_end() {
    let image = Arc::new(FakeImage::new(contents(SECTORS), false).with_commands(COMMANDS));
    let engine = FakeEngine::new(Arc::clone(&image) as Arc<dyn Image>, 5).unwrap();
    let config = BlockConfig::for_image(&*image);
    let mut guest = Guest::new(SECTORS * 512, &config, F_RANGES, engine);
    let status = list(&mut guest, WRITE_ZEROES, &[(1, 1, 0), (3, 1, 0), (5, 1, 0)]);
    guest.worker.run();
    if !cfg!(miri) {
        guest.worker.drain().unwrap();
    }
    guest.finish();
    assert_eq!(guest.get(status, 1), [OK]);
    assert!(image.bytes()[5 * 512..6 * 512] == [0; 512]);
}

#[test]
fn a_large_range_goes_in_pieces_that_end_at_multiples_of_their_size() {
    for kind in KINDS {
        let (guest, _, seen) = watched(None);
        let mut guest = guest.with_range_piece(8 * 512);
        let status = list(&mut guest, kind, &[(3, 20, 0), (40, 8, 0), (50, 0, 0)]);
        guest.worker.run();
        assert_eq!(guest.get(status, 1), [OK]);
        let sectors = |(first, count): (u64, u64)| (first * 512, count * 512);
        let expected = [(3, 5), (8, 8), (16, 7), (40, 8)].map(sectors);
        assert_eq!(*seen.lock().unwrap(), expected, "type {kind}");
    }
}

#[test]
fn ranges_of_no_sectors_ask_the_image_for_nothing() {
    for kind in KINDS {
        let (mut guest, image, seen) = watched(None);
        let status = list(&mut guest, kind, &[(0, 0, 0), (SECTORS, 0, 0)]);
        guest.worker.run();
        assert_eq!((guest.get(status, 1), guest.used()[0].1), (vec![OK], 1), "type {kind}");
        assert!(seen.lock().unwrap().is_empty() && image.bytes() == contents(SECTORS));
    }
}

#[test]
fn a_worker_that_panics_asks_the_driver_for_a_reset() {
    let (mut guest, _, _) = watched(None);
    list(&mut guest, DISCARD, &[(1, 1, 0)]);
    let Guest { mut worker, transport, .. } = guest;
    let thread = std::thread::spawn(move || {
        worker.run();
        panic!("in the midst of its work");
    });
    assert!(thread.join().is_err());
    assert_eq!(transport.status().bits() & 64, 64, "DEVICE_NEEDS_RESET");
}

/// Can't wait.
struct Deaf;

impl QueueWaiter for Deaf {
    fn is_stopped(&self) -> bool {
        false
    }

    fn wait(&mut self, _: Option<BorrowedFd<'_>>, _: Option<Duration>) -> io::Result<()> {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

#[test]
fn a_worker_that_cannot_wait_answers_what_it_has_and_asks_the_driver_for_a_reset() {
    let (mut guest, _, _) = watched(None);
    list(&mut guest, DISCARD, &[(1, 1, 0)]);
    let served = guest.worker.serve(&mut Poller::new(Duration::ZERO), &mut Deaf);
    assert!(matches!(served, Err(ServeError::Wait(_))));
    assert_eq!(guest.used().len(), 1);
    assert!(guest.needs_reset() && guest.worker.is_broken());
    list(&mut guest, DISCARD, &[(1, 1, 0)]);
    assert_eq!(guest.worker.run().processed, 0, "nothing more is taken");
}
