//! The thread that serves one queue.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use tracing::{error, warn};
use virtio_blk_dev::{Image, Params, Stats, SyncEngine, Worker};
use virtio_mmio_dev::{Interrupt, LiveQueue, QueueConfig, QueueError};
use xen_foreignmem::{DomainMemory, ForeignMemory, GrantTable};

use crate::{device_id::DeviceId, log_limit::LogLimit, wake::Wake};

/// Why a queue can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The guest's rings are not where it says, or can't be mapped.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// No thread or eventfd can be had.
    #[error("no thread for the queue: {0}")]
    Thread(#[from] io::Error),
}

struct Shared {
    wake: Wake,
    stop: AtomicBool,
    stats: Mutex<Stats>,
}

/// A queue being served. The queue lets go of the guest's memory in [`WorkerThread::stop`].
pub(crate) struct WorkerThread {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl WorkerThread {
    /// Maps the queue's rings and starts serving them.
    pub(crate) fn start<F: ForeignMemory, G: GrantTable>(
        name: String,
        config: &QueueConfig,
        memory: &DomainMemory<F, G>,
        interrupt: Interrupt,
        params: &Params,
        (id, limit): (DeviceId, LogLimit),
        image: Arc<dyn Image>,
    ) -> Result<Self, StartError> {
        let queue = LiveQueue::new(config, &memory.rings(), memory.requests(), interrupt)?;
        let mut worker = Worker::new(queue, SyncEngine::new(image), params);
        let shared = Arc::new(Shared {
            wake: Wake::new()?,
            stop: AtomicBool::new(false),
            stats: Mutex::new(Stats::default()),
        });
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name).spawn(move || {
            while !its.stop.load(Ordering::Acquire) {
                let more = worker.run().more;
                if let Some(error) = worker.take_last_error()
                    && let Some(dropped) = limit.allow()
                {
                    warn!(%id, %error, dropped, "the image could not do what the guest asked: it got an I/O error");
                }
                *its.stats.lock().unwrap_or_else(PoisonError::into_inner) = worker.stats();
                if !more {
                    its.wake.wait();
                }
            }
            worker.drain();
            *its.stats.lock().unwrap_or_else(PoisonError::into_inner) = worker.stats();
        })?;
        Ok(Self { shared, thread })
    }

    /// The guest has notified the queue.
    pub(crate) fn kick(&self) {
        self.shared.wake.wake();
    }

    /// What the queue has done so far.
    pub(crate) fn stats(&self) -> Stats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finishes what is in flight, unmaps the rings, and gives what the queue has done.
    pub(crate) fn stop(self) -> Stats {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.wake();
        let stats = Arc::clone(&self.shared);
        if self.thread.join().is_err() {
            error!("a queue's thread panicked");
        }
        *stats.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
