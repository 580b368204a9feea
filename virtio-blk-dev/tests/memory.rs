//! How long a request's guest memory stays mapped, and what is allocated for it.
#![cfg(feature = "test-utils")]

#[path = "common/allocations.rs"]
mod allocations;
mod common;

use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use allocations::ALLOCATIONS;
use common::*;
use virtio_blk_dev::fake::{FakeEngine, FakeImage};
use virtio_blk_dev::{
    BlockConfig, Completion, Engine, Image, Io, Operation, RawImage, Sink, Source, SyncEngine,
};
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryError, Permissions};

/// Guest memory behind a translation, as grants are: no look-up but through a request's guard.
#[derive(Clone)]
struct Translated(Arc<Memory>);

impl GuestMemory for Translated {
    type PhysicalMemory = Memory;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        GuestMemory::check_range(&*self.0, addr, count, access)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, ()>>, GuestMemoryError> {
        GuestMemory::get_slices(&*self.0, addr, count, access)
    }
}

/// Guest memory whose guards are counted.
#[derive(Clone)]
struct Counted {
    memory: Translated,
    live: Arc<AtomicUsize>,
}

struct Guard(Counted);

impl Clone for Guard {
    fn clone(&self) -> Self {
        self.0.memory()
    }
}

impl Deref for Guard {
    type Target = Translated;

    fn deref(&self) -> &Translated {
        &self.0.memory
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl GuestAddressSpace for Counted {
    type M = Translated;
    type T = Guard;

    fn memory(&self) -> Guard {
        self.live.fetch_add(1, Ordering::Relaxed);
        Guard(self.clone())
    }
}

/// An image that looks at the count while it works.
struct Watching {
    inner: FakeImage,
    live: Arc<AtomicUsize>,
    calls: AtomicUsize,
    /// The most guards there were at any call.
    most: AtomicUsize,
}

impl Watching {
    fn look(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let live = self.live.load(Ordering::Relaxed);
        assert_ne!(live, 0, "unmapped under the engine");
        self.most.fetch_max(live, Ordering::Relaxed);
    }
}

impl Image for Watching {
    fn capacity(&self) -> u64 {
        self.inner.capacity()
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn read_vectored_at(&self, sink: Sink<'_>, offset: u64) -> io::Result<usize> {
        self.look();
        self.inner.read_vectored_at(sink, offset)
    }

    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize> {
        self.look();
        self.inner.write_vectored_at(source, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }
}

type CountedGuest<E> = Guest<E, Counted>;

fn counted<E: Engine>(
    engine: impl FnOnce(Arc<dyn Image>) -> E,
) -> (CountedGuest<E>, Arc<AtomicUsize>, Arc<Watching>) {
    let live = Arc::new(AtomicUsize::new(0));
    let image = Arc::new(Watching {
        inner: FakeImage::new(contents(8), false),
        live: Arc::clone(&live),
        calls: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let engine = engine(Arc::clone(&image) as Arc<dyn Image>);
    let space = |memory| Counted { memory: Translated(memory), live: Arc::clone(&live) };
    let guest = Guest::with_space(8 * 512, &BlockConfig::default(), F_ALL, engine, space);
    (guest, live, image)
}

#[test]
fn memory_is_mapped_during_the_io_and_unmapped_when_it_is_answered() {
    let (mut guest, live, image) = counted(SyncEngine::new);
    for kind in [IN, OUT, FLUSH, GET_ID, 99] {
        guest.request(kind, 1, &[1; 512], 512);
        assert_eq!(live.load(Ordering::Relaxed), 0, "type {kind}");
    }
    assert_eq!(image.calls.load(Ordering::Relaxed), 2);
}

#[test]
#[cfg_attr(miri, ignore = "its queues are shorter than a batch")]
fn no_more_is_mapped_at_once_than_a_batch() {
    let (mut guest, live, image) = counted(SyncEngine::new);
    let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
    for _ in 0..64 {
        guest.add(&bufs);
    }
    guest.worker.run();
    assert_eq!(guest.used().len(), 32);
    assert_eq!(image.most.load(Ordering::Relaxed), 32);
    assert_eq!(live.load(Ordering::Relaxed), 0);
}

#[test]
fn memory_stays_mapped_while_the_engine_is_late() {
    let (mut guest, live, image) = counted(|image| FakeEngine::new(image, 7).unwrap());
    let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
    for _ in 0..16 {
        guest.add(&bufs);
    }
    let mut answered = 0;
    while answered < 16 {
        guest.worker.run();
        answered += guest.used().len();
        assert_eq!(live.load(Ordering::Relaxed), 16 - answered);
    }
    assert_eq!(image.calls.load(Ordering::Relaxed), 16);
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not know poll(2)")]
fn drain_answers_everything_and_leaves_nothing_mapped() {
    for seed in 1..20 {
        let (mut guest, live, _) = counted(|image| FakeEngine::new(image, seed).unwrap());
        let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
        for _ in 0..16 {
            guest.add(&bufs);
        }
        guest.worker.run();
        guest.worker.drain().unwrap();
        assert_eq!(guest.worker.queue().in_flight(), 0);
        assert_eq!(live.load(Ordering::Relaxed), 0);
        assert_eq!(guest.used().len(), 16);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not know poll(2)")]
fn a_worker_dropped_in_mid_io_waits_for_its_engine() {
    for seed in 1..20 {
        let (mut guest, live, image) = counted(|image| FakeEngine::new(image, seed).unwrap());
        let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
        for _ in 0..16 {
            guest.add(&bufs);
        }
        guest.worker.run();
        drop(guest);
        assert_eq!(live.load(Ordering::Relaxed), 0);
        assert_eq!(image.calls.load(Ordering::Relaxed), 16);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not know poll(2)")]
fn into_queue_gives_back_a_queue_at_rest() {
    let (mut guest, live, _) = counted(|image| FakeEngine::new(image, 3).unwrap());
    let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
    guest.add(&bufs);
    guest.worker.run();
    let queue = guest.worker.into_queue().unwrap();
    assert_eq!(queue.in_flight(), 0);
    assert_eq!((queue.state().next_avail, queue.state().next_used), (1, 1));
    assert_eq!(live.load(Ordering::Relaxed), 0);
}

/// An engine that finishes what was committed, and panics over the second operation.
struct Panics {
    held: Vec<Io>,
    committed: bool,
}

impl Engine for Panics {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        assert!(self.held.is_empty(), "the second");
        self.held.push(io);
        None
    }

    fn commit(&mut self) {
        self.committed = true;
    }

    fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion)) {
        if self.committed {
            self.held.drain(..).for_each(|io| sink(Completion { io, result: Ok(()) }));
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        self.held.len()
    }
}

#[test]
fn a_worker_that_panicked_in_mid_batch_lets_go_of_what_it_had_taken() {
    let (mut guest, live, _) = counted(|_| Panics { held: Vec::new(), committed: false });
    let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
    for _ in 0..2 {
        guest.add(&bufs);
    }
    let run = std::panic::AssertUnwindSafe(|| guest.worker.run());
    assert!(std::panic::catch_unwind(run).is_err());
    // The second operation, and with it the word of its memory's end, went down with the panic.
    assert_eq!(live.load(Ordering::Relaxed), 2);
    drop(guest);
    assert_eq!(live.load(Ordering::Relaxed), 1);
}

/// An engine that keeps what it is given, and hands over what any of its kind was given.
struct Hoard(Arc<Mutex<Vec<Io>>>);

impl Engine for Hoard {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        self.0.lock().unwrap().push(io);
        None
    }

    fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion)) {
        if Arc::strong_count(&self.0) == 1 {
            let mut held = self.0.lock().unwrap();
            held.drain(..).for_each(|io| sink(Completion { io, result: Ok(()) }));
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }
}

#[test]
fn memory_of_an_operation_that_never_comes_back_stays_mapped() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let (mut guest, live, _) = counted(|_| Hoard(Arc::clone(&held)));
    let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
    guest.add(&bufs);
    guest.worker.run();
    drop(guest);
    assert_eq!(live.load(Ordering::Relaxed), 1);
    let held = held.lock().unwrap();
    let Operation::Read(sink) = held[0].operation() else { panic!("a read") };
    assert_eq!(sink.copy_from(&[7; 600]), 512, "it is still there to be written");
}

#[test]
fn an_operation_of_another_worker_is_not_taken_for_ones_own() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let (mut one, live, _) = counted(|_| Hoard(Arc::clone(&held)));
    let bufs = [one.header(IN, 1), one.room(512), one.room(1)];
    one.add(&bufs);
    one.worker.run();
    drop(one);
    // Its engine has the other's operation, in a slot of the same number as its own.
    let (mut thief, thiefs_live, _) = counted(|_| Hoard(held));
    let bufs = [thief.header(IN, 2), thief.room(512), thief.room(1)];
    thief.add(&bufs);
    assert_eq!(thief.worker.run().processed, 1);
    assert_eq!(thief.used().len(), 1);
    assert_eq!((live.load(Ordering::Relaxed), thiefs_live.load(Ordering::Relaxed)), (1, 0));
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no locks of files")]
fn nothing_is_allocated_in_the_steady_state() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), contents(64)).unwrap();
    let image = Arc::new(RawImage::open(file.path(), false).unwrap());
    let engine = SyncEngine::new(Arc::clone(&image));
    let mut guest = Guest::new(image.capacity(), &BlockConfig::default(), F_ALL, engine);
    let data = guest.out(&[7; 512]);
    let reads = [guest.header(IN, 1), guest.room(512), guest.room(512), guest.room(1)];
    let writes = [guest.header(OUT, 2), data, guest.room(1)];
    let flushes = [guest.header(FLUSH, 0), guest.room(1)];
    let ids = [guest.header(GET_ID, 0), guest.room(20), guest.room(1)];
    let mut round = |depth: usize| {
        for _ in 0..depth {
            guest.add(&reads);
            guest.add_indirect(&writes);
            guest.add(&flushes);
            guest.add(&ids);
        }
        let before = ALLOCATIONS.get();
        let progress = guest.kick();
        let allocated = ALLOCATIONS.get() - before;
        assert_eq!(progress.processed, 4 * depth as u64);
        assert_eq!(guest.used().len(), 4 * depth);
        allocated
    };
    for _ in 0..4 {
        round(8);
    }
    for _ in 0..50 {
        assert_eq!(round(8), 0);
    }
}
