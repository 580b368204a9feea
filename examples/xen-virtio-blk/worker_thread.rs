//! The thread that serves one queue.

use std::{
    io,
    os::fd::BorrowedFd,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use backend_process::{LogLimit, chain};
use tracing::{error, warn};
use virtio_blk_dev::{
    Canceller, Counters, Engine, EngineFault, HostError, Params, Poller, QueueWaiter, RateLimiter,
    ServeError, Worker,
};
use virtio_mmio_dev::{Interrupt, LiveQueue, QueueConfig, QueueError, RingFault};
use xen_foreignmem::{DomainMemory, ForeignMemory, GrantTable};

use crate::{cpus, device_id::DeviceId, wake::Wake};

/// Why a queue can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The guest's rings are not where it says, or can't be mapped.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// No thread can be had.
    #[error(
        "no thread can be started for the queue: raise the limit of tasks (TasksMax= of the systemd unit, `ulimit -u`)"
    )]
    Thread(#[from] io::Error),
}

struct Shared {
    wake: Arc<Wake>,
    stop: AtomicBool,
}

/// A queue being served. The queue lets go of the guest's memory in [`WorkerThread::stop`].
pub(crate) struct WorkerThread {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    canceller: Canceller,
    thread: JoinHandle<Option<Box<dyn Engine>>>,
}

/// How a queue is to be served.
pub(crate) struct Serving<'a> {
    pub(crate) id: DeviceId,
    /// Taken if the queue can be served, and given back when it was.
    pub(crate) engine: &'a mut Option<Box<dyn Engine>>,
    /// By what its thread is woken.
    pub(crate) wake: Arc<Wake>,
    pub(crate) limiter: Option<Arc<RateLimiter>>,
    /// As [`Poller::new`] has it.
    pub(crate) poll: Duration,
    /// Where its thread runs.
    pub(crate) cpu: Option<usize>,
    pub(crate) log: LogLimit,
}

impl WorkerThread {
    /// Maps the queue's rings and starts serving them.
    pub(crate) fn start<F: ForeignMemory, G: GrantTable>(
        config: &QueueConfig,
        memory: &DomainMemory<F, G>,
        interrupt: Interrupt,
        params: &Params,
        serving: Serving<'_>,
    ) -> Result<Self, StartError> {
        let Serving { id, engine, wake, limiter, poll, cpu, log } = serving;
        let queue = LiveQueue::new(config, &memory.rings(), memory.requests(), interrupt)?;
        let shared = Arc::new(Shared { wake, stop: AtomicBool::new(false) });
        let counters = Arc::<Counters>::default();
        let Some(mut engine) = engine.take() else {
            return Err(io::Error::other("the queue's engine is in use").into());
        };
        let (waiting, queue_index) = (Arc::clone(&shared), config.index);
        let mut waiter =
            Waiter { shared: waiting, id, index: queue_index, log, engine_is_whole: true };
        let (params, its) = (params.clone(), Arc::clone(&counters));
        let canceller = Canceller::default();
        let its_canceller = canceller.clone();
        let name = format!("vq-{}-{}-{}", id.domid, id.devid, config.index);
        let serve = move || {
            if let Some(cpu) = cpu
                && let Err(error) = cpus::pin_to(cpu)
                && let Some(dropped) = waiter.log.allow()
            {
                warn!(%id, cpu, error = %chain(&error), dropped, "a queue's thread can't be bound to its CPU, and runs on any: correct --cpus, or cpus in the --config file");
            }
            let mut worker = Worker::with_counters(queue, &mut *engine, &params, its)
                .with_canceller(its_canceller);
            if let Some(limiter) = limiter {
                worker = worker.with_rate_limiter(limiter);
            }
            match worker.serve(&mut Poller::new(poll), &mut waiter) {
                Ok(()) => {}
                // The worker leaks the guards of what is in use, which keep it mapped.
                Err(ServeError::StillInUse(error)) => {
                    error!(%id, error = %chain(&error), "a queue's I/O has not come back from the kernel, so the guest's memory stays mapped: `xl destroy` the guest, and restart xen-virtio-blk when no guest is served");
                }
                Err(error) => {
                    error!(%id, queue = queue_index, error = %chain(&error), "a queue is no longer served, and its guest was asked to reset the disk (DEVICE_NEEDS_RESET): if it does not, `xl destroy` and `xl create` it");
                }
            }
            drop(worker);
            waiter.engine_is_whole.then_some(engine)
        };
        let thread = thread::Builder::new().name(name).spawn(move || {
            // The queue goes down with the worker, and asks for a reset.
            panic::catch_unwind(AssertUnwindSafe(serve)).unwrap_or_else(|_| {
                error!(%id, queue = queue_index, "a queue's thread panicked, and its guest was asked to reset the disk (DEVICE_NEEDS_RESET): if it does not, `xl destroy` and `xl create` it; report this as a bug");
                None
            })
        })?;
        Ok(Self { shared, counters, canceller, thread })
    }

    /// The guest has notified the queue, or its configuration has changed.
    pub(crate) fn kick(&self) {
        self.shared.wake.wake();
    }

    /// What the queue does, counted.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Finishes what is in flight and unmaps the rings. Gives the queue's engine back, unless it broke.
    /// Lists of ranges end early: the guest has reset the disk or the queue, or loses the disk, and
    /// waits for no answer.
    pub(crate) fn stop(self) -> Option<Box<dyn Engine>> {
        self.canceller.cancel();
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.wake();
        // Its panics are caught.
        self.thread.join().ok().flatten()
    }
}

/// By what a worker's thread hears of kicks and of its end.
struct Waiter {
    shared: Arc<Shared>,
    id: DeviceId,
    index: u16,
    log: LogLimit,
    /// It can serve the queue when that is set up anew.
    engine_is_whole: bool,
}

impl QueueWaiter for Waiter {
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

    fn on_host_error(&mut self, error: &HostError) {
        if let Some(dropped) = self.log.allow() {
            warn!(id = %self.id, error = %chain(&error), dropped, "a request failed, and the guest got an I/O error: check the image's storage");
        }
    }

    fn on_engine_fault(&mut self, fault: &EngineFault) {
        self.engine_is_whole = false;
        warn!(id = %self.id, queue = self.index, fault = %chain(fault), "io_uring failed in a queue's thread");
    }

    // Once for a disk, and the guest has no say in it: without a limit.
    fn on_durability_lost(&mut self, error: &HostError) {
        error!(
            id = %self.id,
            error = %chain(&error),
            "the image's storage failed to keep what the guest wrote: every flush fails from now on; \
             check the storage, then destroy and create the guest, and check its file systems"
        );
    }

    fn on_broken(&mut self, fault: RingFault) {
        if let Some(dropped) = self.log.allow() {
            warn!(id = %self.id, queue = self.index, %fault, dropped, "the guest's driver broke the ring with an invalid entry: the queue is stopped until the driver resets the disk");
        }
    }
}
