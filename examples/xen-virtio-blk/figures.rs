//! What a disk has done so far.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tracing::info;
use virtio_blk_dev::{Counters, Durability, OpStats, RequestKind, Stats};
use xen_virtio_backend::node::DeviceId;

/// The kinds of requests that are told of one by one, and what they are called.
pub const OPS: [(&str, RequestKind); 6] = [
    ("read", RequestKind::Read),
    ("write", RequestKind::Write),
    ("flush", RequestKind::Flush),
    ("discard", RequestKind::Discard),
    ("write_zeroes", RequestKind::WriteZeroes),
    ("secure_erase", RequestKind::SecureErase),
];

/// A disk's counters. Whoever reads them waits for none of the threads that serve the disk. They go on
/// over resets of the device.
#[derive(Debug)]
pub struct Figures {
    id: DeviceId,
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

impl Figures {
    /// Of a disk with so many queues, which has done nothing yet.
    pub fn new(id: DeviceId, queues: usize, durability: Arc<Durability>) -> Self {
        Self {
            id,
            ioreqs: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
            durability,
            queues: Mutex::new(Queues { past: Stats::default(), live: vec![None; queues] }),
        }
    }

    /// Whose.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Accesses of the guest to the registers.
    pub fn ioreqs(&self) -> u64 {
        self.ioreqs.load(Ordering::Relaxed)
    }

    /// Interrupts that were raised.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// Whether a flush of the image has failed, so that none succeeds any more.
    pub fn has_failed_flush(&self) -> bool {
        self.durability.is_lost()
    }

    /// The sum over all queues.
    pub fn stats(&self) -> Stats {
        let queues = self.queues();
        let mut stats = queues.past.clone();
        queues.live.iter().flatten().for_each(|counters| stats += &counters.read());
        stats
    }

    /// Logs how long each kind of request took.
    pub(crate) fn report_latencies(&self, stats: &Stats) {
        for (op, kind) in OPS {
            let OpStats { requests, bytes, errors, latency } = &stats[kind];
            if *requests > 0 {
                let micros = |share| latency.percentile(share).as_micros();
                info!(
                    id = %self.id,
                    op,
                    requests,
                    bytes,
                    errors,
                    p50_us = micros(0.5),
                    p99_us = micros(0.99),
                    p999_us = micros(0.999),
                    "disk latency"
                );
            }
        }
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
