//! What a disk does, counted while it is served.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use virtio_blk_dev::{Counters, Durability, Stats};

use crate::figures::Figures;

/// A disk's counters. Whoever reads them waits for none of the threads that serve the disk. They go on
/// over resets of the device.
#[derive(Debug)]
pub(crate) struct LiveFigures {
    ioreqs: AtomicU64,
    interrupts: AtomicU64,
    durability: Arc<Durability>,
    queues: Mutex<Queues>,
}

#[derive(Debug)]
struct Queues {
    /// Of workers that have ended.
    past: Stats,
    live: Vec<Option<Arc<Counters>>>,
}

impl LiveFigures {
    /// Of a disk with so many queues, which has done nothing yet.
    pub(crate) fn new(queues: usize, durability: Arc<Durability>) -> Self {
        Self {
            ioreqs: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
            durability,
            queues: Mutex::new(Queues { past: Stats::default(), live: vec![None; queues] }),
        }
    }

    /// What was counted up to now. What the disk knows beside that is left at its default.
    pub(crate) fn read(&self) -> Figures {
        Figures {
            ioreqs: self.ioreqs.load(Ordering::Relaxed),
            interrupts: self.interrupts.load(Ordering::Relaxed),
            flush_failed: self.durability.is_lost(),
            stats: self.stats(),
            ..Figures::default()
        }
    }

    /// The sum over all queues.
    fn stats(&self) -> Stats {
        let queues = self.queues();
        let mut stats = queues.past.clone();
        queues.live.iter().flatten().for_each(|counters| stats += &counters.read());
        stats
    }

    pub(crate) fn count_ioreq(&self) {
        self.ioreqs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    /// A queue is served from now on.
    pub(crate) fn started(&self, queue: usize, counters: Arc<Counters>) {
        self.stopped(queue);
        if let Some(place) = self.queues().live.get_mut(queue) {
            *place = Some(counters);
        }
    }

    /// A queue's worker has ended.
    pub(crate) fn stopped(&self, queue: usize) {
        let mut queues = self.queues();
        if let Some(counters) = queues.live.get_mut(queue).and_then(Option::take) {
            queues.past += &counters.read();
        }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
