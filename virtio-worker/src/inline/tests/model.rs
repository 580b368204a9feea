//! Every schedule of a queue's thread that goes to sleep and of the thread that notifies it, serves it inline, and
//! stops it. This is the crate's own code on loom's lock and atomics; queue and eventfd are modelled.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p virtio-worker --lib --release inline`

use super::super::*;
use crate::sync::Ordering;
use crate::waiter::{Stop, Waiter};
use crate::wake::Wake;
use loom::sync::atomic::AtomicU32;
use loom::thread;

/// A ring: how many requests the driver has added, and how many were answered.
struct Ring {
    added: AtomicU32,
    answered: AtomicU32,
    /// How often it was dropped.
    dropped: AtomicU32,
}

impl Ring {
    fn new() -> Arc<Self> {
        let [added, answered, dropped] = [(); 3].map(|()| AtomicU32::new(0));
        Arc::new(Self { added, answered, dropped })
    }
}

/// What serves it. Two threads at once would answer a request twice: it counts without atomics of its own.
struct Server {
    ring: Arc<Ring>,
    taken: u32,
}

impl Server {
    /// How many requests wait.
    fn available(&self) -> u32 {
        self.ring.added.load(Ordering::Acquire) - self.taken
    }

    fn answer_one(&mut self) {
        self.taken += 1;
        let before = self.ring.answered.fetch_add(1, Ordering::AcqRel);
        assert_eq!(before + 1, self.taken, "served twice");
    }
}

impl ServeInline for Server {
    fn serve_inline(&mut self) -> Inline {
        // A request that comes alone, and no other.
        if self.available() > 1 {
            return Inline::NeedsThread;
        }
        if self.available() == 1 {
            self.answer_one();
        }
        Inline::Done
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ring.dropped.fetch_add(1, Ordering::AcqRel);
    }
}

/// As `QueueThread` does.
fn notify(stop: &Stop, handle: &InlineHandle) {
    if stop.is_given() || handle.serve() == Inline::NeedsThread {
        stop.waker().wake();
    }
}

/// The queue's thread, until it is stopped or the second request was answered.
fn queue(mut waiter: Waiter, slot: InlineSlot<Server>, ring: Arc<Ring>) {
    let mut owner = slot.put(Server { ring, taken: 0 });
    while !waiter.is_stopped() {
        let taken = owner.with(|server| {
            while server.available() > 0 {
                server.answer_one();
            }
            server.taken
        });
        if taken == 2 {
            break;
        }
        waiter.wait(None, None).unwrap();
    }
    drop(owner.end());
}

#[test]
fn what_is_notified_is_served_once_by_the_queues_thread_or_by_the_notifying_one() {
    loom::model(|| {
        let ring = Ring::new();
        let (waiter, stop) = Waiter::new(Wake::new().unwrap());
        let slot = InlineSlot::new();
        let (handle, its) = (slot.handle(), Arc::clone(&ring));
        let thread = thread::spawn(move || queue(waiter, slot, its));
        for _ in 0..2 {
            ring.added.fetch_add(1, Ordering::AcqRel);
            notify(&stop, &handle);
        }
        if ring.answered.load(Ordering::Acquire) == 2 {
            // The queue's thread may sleep.
            stop.give();
        }
        // Else it answers what is left, without being told anything more. If a notification is lost, this is a
        // deadlock, which loom reports.
        thread.join().unwrap();
        assert_eq!(ring.answered.load(Ordering::Acquire), 2);
    });
}

#[test]
fn nothing_is_served_inline_when_the_queues_thread_has_ended() {
    loom::model(|| {
        let ring = Ring::new();
        let (waiter, stop) = Waiter::new(Wake::new().unwrap());
        let slot = InlineSlot::new();
        let (handle, its) = (slot.handle(), Arc::clone(&ring));
        let thread = thread::spawn(move || queue(waiter, slot, its));
        // It is stopped by another thread than notifies it.
        let other = Arc::clone(&ring);
        let notifier = thread::spawn(move || {
            other.added.fetch_add(1, Ordering::AcqRel);
            handle.serve();
            handle
        });
        stop.give();
        thread.join().unwrap();
        let answered = ring.answered.load(Ordering::Acquire);
        assert_eq!(ring.dropped.load(Ordering::Acquire), 1, "its rings are still mapped");
        let handle = notifier.join().unwrap();
        assert_eq!(handle.serve(), Inline::NeedsThread);
        assert_eq!(ring.answered.load(Ordering::Acquire), answered);
    });
}
