//! The thread that serves one queue.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::{error, warn};
use virtio_blk_dev::{
    Counters, Doorbell, HostError, Image, Params, Poller, Stats, SyncEngine, Worker,
};
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
}

/// A queue being served. The queue lets go of the guest's memory in [`WorkerThread::stop`].
pub(crate) struct WorkerThread {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
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
        let counters = worker.counters();
        let shared = Arc::new(Shared { wake: Wake::new()?, stop: AtomicBool::new(false) });
        let mut bell = Bell { shared: Arc::clone(&shared), id, limit };
        let thread = thread::Builder::new().name(name).spawn(move || {
            if let Err(error) = worker.serve(&mut Poller::new(Duration::ZERO), &mut bell) {
                error!(%id, %error, "a queue can't wait for its guest: it is served no more");
            }
        })?;
        Ok(Self { shared, counters, thread })
    }

    /// The guest has notified the queue.
    pub(crate) fn kick(&self) {
        self.shared.wake.wake();
    }

    /// What the queue has done so far.
    pub(crate) fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Finishes what is in flight, unmaps the rings, and gives what the queue has done.
    pub(crate) fn stop(self) -> Stats {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.wake();
        if self.thread.join().is_err() {
            error!("a queue's thread panicked");
        }
        self.counters.read()
    }
}

/// By what a worker's thread hears of kicks and of its end.
struct Bell {
    shared: Arc<Shared>,
    id: DeviceId,
    limit: LogLimit,
}

impl Doorbell for Bell {
    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    fn wait(
        &mut self,
        engine: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.shared.wake.wait_with(engine, timeout)
    }

    fn failed(&mut self, error: &HostError) {
        if let Some(dropped) = self.limit.allow() {
            warn!(id = %self.id, %error, dropped, "the image could not do what the guest asked: it got an I/O error");
        }
    }
}
