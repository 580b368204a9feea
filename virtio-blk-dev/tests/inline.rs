//! A queue that another thread than its own serves, which must not block.
#![cfg(feature = "test-utils")]

mod common;
#[path = "common/host.rs"]
mod host;

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use virtio_blk_dev::fake::FakeImage;
use virtio_blk_dev::{
    BlockConfig, Completion, Engine, Image, InlineLimit, Io, Poller, Rate, RateLimiter, RateLimits,
    RawImage, RawOptions, SyncEngine, UringEngine,
};

const SECTORS: u64 = 1024;

/// An engine that notes what it is asked to do without blocking, and otherwise.
#[derive(Clone)]
struct Noting {
    inner: Arc<Mutex<SyncEngine<FakeImage>>>,
    /// Data is at hand.
    at_hand: Arc<AtomicBool>,
    inline: Arc<AtomicUsize>,
    submitted: Arc<AtomicUsize>,
    /// Done while the next operation is carried out inline.
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;

impl Noting {
    fn calls(&self) -> (usize, usize) {
        (self.inline.load(Ordering::Relaxed), self.submitted.load(Ordering::Relaxed))
    }
}

impl Engine for Noting {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        self.submitted.fetch_add(1, Ordering::Relaxed);
        self.inner.lock().unwrap().submit(io)
    }

    fn try_alone(&mut self, io: Io) -> Result<Completion, Io> {
        if !self.at_hand.load(Ordering::Relaxed) {
            return Err(io);
        }
        self.inline.fetch_add(1, Ordering::Relaxed);
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        self.inner.lock().unwrap().submit(io).ok_or_else(|| unreachable!())
    }

    fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }
}

fn noting() -> (Guest<Noting>, Noting, Arc<FakeImage>) {
    let image = Arc::new(FakeImage::new(contents(SECTORS), false).with_commands(COMMANDS));
    let engine = Noting {
        inner: Arc::new(Mutex::new(SyncEngine::new(Arc::clone(&image)))),
        at_hand: Arc::new(AtomicBool::new(true)),
        inline: Arc::default(),
        submitted: Arc::default(),
        meanwhile: Arc::default(),
    };
    let config = BlockConfig::for_image(&image);
    (Guest::new(SECTORS * 512, &config, F_ALL | F_CONFIG_WCE, engine.clone()), engine, image)
}

fn never() -> Poller {
    Poller::new(Duration::ZERO)
}

/// Makes a read available; where its data and status go.
fn read<E: Engine>(guest: &mut Guest<E>, sector: u64, len: usize) -> (u64, u64) {
    let bufs = [guest.header(IN, sector), guest.room(len), guest.room(1)];
    guest.add(&bufs);
    (bufs[1].addr, bufs[2].addr)
}

fn write<E: Engine>(guest: &mut Guest<E>, sector: u64, data: &[u8]) -> u64 {
    let bufs = [guest.header(OUT, sector), guest.out(data), guest.room(1)];
    guest.add(&bufs);
    bufs[2].addr
}

#[test]
fn a_request_that_comes_alone_is_answered_inline_and_notifications_are_enabled_again() {
    let (mut guest, engine, image) = noting();
    let mut poller = never();
    for nth in 0..3 {
        let (data, status) = read(&mut guest, 3, 1024);
        assert!(guest.worker.serve_inline(InlineLimit::LONE, &mut poller));
        assert_eq!((guest.get(status, 1), guest.used().len()), (vec![OK], 1));
        assert_eq!(guest.get(data, 1024), image.bytes()[3 * 512..5 * 512]);
        assert_ne!(guest.acknowledge(), 0, "no interrupt");
        assert_eq!(engine.calls(), (nth + 1, 0));
    }
    let status = write(&mut guest, 7, &[5; 512]);
    assert!(guest.worker.serve_inline(InlineLimit::LONE, &mut poller));
    assert_eq!((guest.get(status, 1), &image.bytes()[7 * 512..8 * 512]), (vec![OK], &[5; 512][..]));
    let stats = guest.worker.stats();
    assert_eq!((stats.requests(), stats.in_flight, stats.errors()), (4, 0, 0));
}

#[test]
fn what_is_more_than_a_small_read_or_write_is_left_for_the_queues_thread_untouched() {
    type Add = fn(&mut Guest<Noting>);
    let left: [(&str, usize, Add); 6] = [
        ("two requests", 2, |guest| _ = (read(guest, 1, 512), read(guest, 2, 512))),
        ("a large one", 1, |guest| _ = read(guest, 0, (64 << 10) + 512)),
        ("a flush", 1, |guest| {
            let bufs = [guest.header(FLUSH, 0), guest.room(1)];
            guest.add(&bufs);
        }),
        ("a discard", 1, |guest| {
            let bufs = [guest.header(DISCARD, 0), guest.out(&ranges(&[(1, 1, 0)])), guest.room(1)];
            guest.add(&bufs);
        }),
        ("the disk's name", 1, |guest| {
            let bufs = [guest.header(GET_ID, 0), guest.room(20), guest.room(1)];
            guest.add(&bufs);
        }),
        ("one without a status", 1, |guest| {
            let bufs = [guest.header(OUT, 0), guest.out(&[0; 512])];
            guest.add(&bufs);
        }),
    ];
    for (what, requests, add) in left {
        let (mut guest, engine, _) = noting();
        add(&mut guest);
        assert!(!guest.worker.serve_inline(InlineLimit::LONE, &mut never()), "{what}");
        assert_eq!((guest.used().len(), engine.calls()), (0, (0, 0)), "{what}");
        guest.kick();
        assert_eq!(guest.used().len(), requests, "{what}");
    }
}

#[test]
fn what_would_block_is_left_and_carried_out_once_by_the_queues_thread() {
    let (mut guest, engine, image) = noting();
    engine.at_hand.store(false, Ordering::Relaxed);
    let status = write(&mut guest, 1, &[9; 512]);
    assert!(!guest.worker.serve_inline(InlineLimit::LONE, &mut never()));
    assert_eq!((guest.used().len(), engine.calls()), (0, (0, 0)));
    // Nothing passes it, though it could be served.
    engine.at_hand.store(true, Ordering::Relaxed);
    read(&mut guest, 2, 512);
    assert!(!guest.worker.serve_inline(InlineLimit::LONE, &mut never()));
    assert_eq!(engine.calls(), (0, 0));
    guest.kick();
    assert_eq!((guest.get(status, 1), guest.used().len()), (vec![OK], 2));
    assert_eq!((engine.calls(), &image.bytes()[512..1024]), ((0, 2), &[9; 512][..]));
}

#[test]
fn a_request_that_comes_while_another_is_served_inline_is_not_left_alone() {
    let (mut guest, engine, _) = noting();
    let mut answered = 0;
    // Without a limit that would be a loop for as long as the driver adds requests.
    for (more, idle) in [(1, true), (2, false)] {
        (0..=more).for_each(|sector| _ = read(&mut guest, sector, 512));
        let (memory, index) = guest.unpublish(more as u16);
        *engine.meanwhile.lock().unwrap() = Some(Box::new(move || publish(&memory, index)));
        assert_eq!(guest.worker.serve_inline(InlineLimit::LONE, &mut never()), idle, "{more}");
        answered += guest.used().len();
    }
    assert_eq!(answered, 3);
    guest.kick();
    assert_eq!(guest.used().len(), 2);
}

#[test]
fn what_was_left_is_answered_when_the_queue_is_stopped_instead() {
    let (mut guest, engine, _) = noting();
    engine.at_hand.store(false, Ordering::Relaxed);
    let (_, status) = read(&mut guest, 1, 512);
    assert!(!guest.worker.serve_inline(InlineLimit::LONE, &mut never()));
    guest.worker.drain().unwrap();
    assert_eq!((guest.get(status, 1), guest.used().len()), (vec![OK], 1));
}

#[test]
fn a_queue_whose_requests_are_limited_or_must_be_stable_is_served_by_its_thread() {
    let (guest, engine, _) = noting();
    let limiter = Arc::new(RateLimiter::new(&RateLimits::default()));
    let mut guest = guest.with_shared_limiter(&limiter);
    read(&mut guest, 1, 512);
    assert!(guest.worker.serve_inline(InlineLimit::LONE, &mut never()));
    let ops = Some(Rate { per_second: 1, burst: 1 });
    limiter.set(&RateLimits { ops, bytes: None });
    read(&mut guest, 1, 512);
    assert!(!guest.worker.serve_inline(InlineLimit::LONE, &mut never()));
    limiter.set(&RateLimits::default());
    guest.kick();

    guest.set_writeback(0);
    read(&mut guest, 1, 512);
    assert!(!guest.worker.serve_inline(InlineLimit::LONE, &mut never()), "a flush is due");
    guest.kick();
    let before = engine.calls();
    write(&mut guest, 1, &[1; 512]);
    assert!(!guest.worker.serve_inline(InlineLimit::LONE, &mut never()), "a write-through");
    assert_eq!(engine.calls(), before);
    guest.kick();
    guest.used();
    read(&mut guest, 1, 512);
    assert!(guest.worker.serve_inline(InlineLimit::LONE, &mut never()), "a read is stable");
    assert_eq!(guest.used().len(), 1);
}

#[test]
fn a_process_with_one_processor_serves_a_small_batch_inline_with_one_interrupt() {
    let (mut guest, engine, _) = noting();
    let all: Vec<_> = (0..8).map(|sector| read(&mut guest, sector * 8, 4096)).collect();
    assert!(guest.worker.serve_inline(InlineLimit::ONE_PROCESSOR, &mut never()));
    assert!(all.iter().all(|(_, status)| guest.get(*status, 1) == [OK]));
    assert_eq!((guest.used().len(), engine.calls()), (8, (8, 0)));
    assert_eq!(guest.worker.stats().batches, 1);
    for sector in 0..3 {
        read(&mut guest, sector, 64 << 10);
    }
    assert!(!guest.worker.serve_inline(InlineLimit::ONE_PROCESSOR, &mut never()));
    assert_eq!(guest.used().len(), 0, "too much to begin with");
}

#[test]
fn a_ring_that_is_found_broken_inline_is_reported_by_the_queues_thread() {
    let (mut guest, _, _) = noting();
    guest.add_loop();
    assert!(!guest.worker.serve_inline(InlineLimit::LONE, &mut never()));
    assert!(guest.worker.is_broken());
    assert!(!guest.worker.serve_inline(InlineLimit::LONE, &mut never()));
}

#[test]
fn a_queue_that_polling_pays_for_is_given_to_its_thread_when_it_is_idle() {
    let (mut guest, _, _) = noting();
    let mut poller = Poller::new(Duration::from_secs(3600));
    // Each comes soon after the last.
    let polls = (0..20).any(|_| {
        read(&mut guest, 1, 512);
        !guest.worker.serve_inline(InlineLimit::LONE, &mut poller)
    });
    assert!(polls, "{:?}", poller.budget());
    assert!(!guest.used().is_empty(), "it was answered before");
}

/// What comes of a read and a write of a file by this engine, inline or else by the queue's thread. Whether each was
/// inline.
fn on_file(image: &Arc<RawImage>, engine: impl Engine) -> [bool; 2] {
    let config = BlockConfig::for_image(&**image);
    let mut guest = Guest::new(image.capacity(), &config, F_ALL, engine);
    let status = write(&mut guest, 1, &[7; 4096]);
    let wrote = guest.worker.serve_inline(InlineLimit::LONE, &mut never());
    guest.finish();
    assert_eq!(guest.get(status, 1), [OK]);
    let (data, status) = read(&mut guest, 1, 4096);
    let has_read = guest.worker.serve_inline(InlineLimit::LONE, &mut never());
    guest.finish();
    assert_eq!((guest.get(status, 1), guest.get(data, 4096)), (vec![OK], vec![7; 4096]));
    // Beyond the end, which must not extend the file.
    let status = write(&mut guest, SECTORS, &[7; 512]);
    guest.worker.serve_inline(InlineLimit::LONE, &mut never());
    guest.finish();
    assert_eq!(guest.get(status, 1), [IOERR]);
    [wrote, has_read]
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no preadv2")]
fn both_engines_serve_what_is_in_the_page_cache_inline_and_nothing_with_direct_io() {
    for directory in host::directories() {
        let path = host::file(directory.path(), SECTORS * 512);
        std::fs::write(&path, contents(SECTORS)).unwrap();
        let is_memory = directory.path().starts_with("/dev/shm");
        let image = Arc::new(RawImage::open(&path, false).unwrap());
        let [wrote, has_read] = on_file(&image, SyncEngine::new(Arc::clone(&image)));
        assert!(wrote || !is_memory);
        assert!(has_read || !is_memory);
        if let Ok(engine) = UringEngine::new(Arc::clone(&image), 8) {
            assert_eq!(on_file(&image, engine), [wrote, has_read]);
        }
        drop(image);
        let Ok(image) = RawOptions::new().direct(true).open(&path) else { continue };
        let image = Arc::new(image);
        assert_eq!(on_file(&image, SyncEngine::new(Arc::clone(&image))), [false; 2]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), SECTORS * 512);
    }
}
