//! The thread that serves one queue.

use std::{io, os::fd::BorrowedFd, sync::Arc, time::Duration};

use backend_process::chain;
use tracing::{error, warn};
use virtio_blk_dev::{
    Canceller, Counters, Engine, EngineFault, HostError, InlineLimit, Params, Pause, Poller,
    QueueWaiter, RateLimiter, ServeError, Worker,
};
use virtio_dev::{BulkMemory, Interrupt, LiveQueue, QueueConfig, QueueError, RingFault};
use virtio_worker::{
    Cpu, EngineWaiter, Inline, InlineHandle, InlineSlot, LogLimit, QueueThread, ServeInline,
    Served, SpawnError, ThreadEvent, ThreadSpec, Waiter, Wake,
};
use vm_memory::GuestAddressSpace;
use xen_virtio_backend::node::DeviceId;
use xen_virtio_sandbox::{ThreadFilters, ThreadKind};

use crate::processors;

/// Why a queue can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The guest's rings are not where it says, or can't be mapped.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// No thread can be had.
    #[error(transparent)]
    Thread(#[from] SpawnError),
}

/// What the thread of a queue needs, and what is kept while the queue is not served.
pub(crate) struct Idle {
    /// `None` if it was unusable, or its thread panicked.
    pub(crate) engine: Option<Box<dyn Engine>>,
    pub(crate) wake: Wake,
}

/// A queue's engine; `None` while its worker has it.
type Lent = Option<Box<dyn Engine>>;

/// A queue in service. Its rings are unmapped when [`WorkerThread::stop`] returns.
pub(crate) struct WorkerThread {
    thread: QueueThread<Lent, ()>,
    inline: InlineHandle,
    counters: Arc<Counters>,
    canceller: Canceller,
}

/// How a queue is to be served.
pub(crate) struct ServingSpec {
    pub(crate) id: DeviceId,
    pub(crate) engine: Box<dyn Engine>,
    /// What its thread sleeps on.
    pub(crate) wake: Wake,
    pub(crate) limiter: Arc<RateLimiter>,
    /// As [`Poller::new`] has it.
    pub(crate) poll: Duration,
    /// The CPU of its thread.
    pub(crate) cpu: Option<Cpu>,
    pub(crate) log: LogLimit,
    /// What its thread is confined by.
    pub(crate) filters: ThreadFilters,
}

impl WorkerThread {
    /// Maps the queue's rings, which are in the first space, and starts to serve them; the second has the buffers of
    /// requests, for many of which at once there is the third. If that fails, the engine and the wake-up are returned
    /// with the error.
    pub(crate) fn start<R, D>(
        config: &QueueConfig,
        (rings, requests, bulk): (R, D, Option<Box<dyn BulkMemory<D>>>),
        interrupt: Interrupt,
        params: &Params,
        spec: ServingSpec,
    ) -> Result<Self, (StartError, Idle)>
    where
        R: GuestAddressSpace<T: Send> + Send + 'static,
        D: GuestAddressSpace<T: Send> + Send + 'static,
    {
        let ServingSpec { id, engine, wake, limiter, poll, cpu, log, filters } = spec;
        let queue = match LiveQueue::new(config, &rings, requests, interrupt) {
            Ok(queue) => queue,
            Err(error) => return Err((error.into(), Idle { engine: Some(engine), wake })),
        };
        let queue = match bulk {
            Some(bulk) => queue.with_bulk(bulk),
            None => queue,
        };
        let counters = Arc::<Counters>::default();
        let canceller = Canceller::default();
        let index = config.index;
        let (params, its, its_canceller) =
            (params.clone(), Arc::clone(&counters), canceller.clone());
        let on_event = log_events(id, index, log.clone());
        let limit = match processors::is_one() {
            true => InlineLimit::ONE_PROCESSOR,
            false => InlineLimit::LONE,
        };
        let slot = InlineSlot::new();
        let inline = slot.handle();
        let serve = move |lent: &mut Lent, waiter: &mut Waiter| {
            let Some(engine) = lent.take() else { return Served::unusable(()) };
            let kind = match engine.as_fd() {
                Some(_) => ThreadKind::UringQueue,
                None => ThreadKind::SyncQueue,
            };
            if let Err(error) = filters.apply(kind) {
                error!(%id, queue = index, error = %chain(&error), "the thread of a queue can't be confined, and the queue is not served: report this as a bug");
                return Served::unusable(());
            }
            let worker = Worker::with_counters(queue, engine, &params, its)
                .with_canceller(its_canceller)
                .with_rate_limiter(limiter);
            let serving = Serving { worker, poller: Poller::new(poll), limit };
            let reporter = Reporter { id, index, log, engine_is_whole: true };
            let (engine, is_whole) = serve(serving, slot, waiter, reporter);
            *lent = Some(engine);
            if is_whole { Served::idle(()) } else { Served::unusable(()) }
        };
        let spec = ThreadSpec::new(format!("vq-{}-{}-{index}", id.domid, id.devid), wake).cpu(cpu);
        match QueueThread::start(spec, Some(engine), serve, on_event) {
            Ok(thread) => Ok(Self { thread, inline, counters, canceller }),
            Err(error) => {
                let idle = Idle { engine: error.engine, wake: error.wake };
                Err((error.reason.into(), idle))
            }
        }
    }

    /// The guest has notified the queue: what is there is served on this thread, if it needs no wait.
    pub(crate) fn notify(&self) {
        self.thread.notify(&self.inline);
    }

    /// Has the thread look for requests, and at what has changed.
    pub(crate) fn kick(&self) {
        self.thread.wake();
    }

    /// What the queue does, counted.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Has the thread finish what is in flight and end, without waiting for it. Lists of ranges end early: the guest
    /// has reset the disk or the queue, or loses the disk, and waits for no answer.
    pub(crate) fn begin_stop(&self) {
        self.canceller.cancel();
        self.thread.begin_stop();
    }

    /// The thread has ended, and nothing of the queue is mapped any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.thread.is_finished()
    }

    /// [Begins to stop](Self::begin_stop), and waits for the end. Gives back what the queue was lent.
    pub(crate) fn stop(self) -> Idle {
        self.begin_stop();
        let stopped = self.thread.stop();
        Idle { engine: stopped.engine.flatten(), wake: stopped.wake }
    }
}

/// What serves a queue, on its own thread or on the guest's.
struct Serving<R: GuestAddressSpace, D: GuestAddressSpace> {
    worker: Worker<R, D, Box<dyn Engine>>,
    poller: Poller,
    /// What the guest's thread may serve.
    limit: InlineLimit,
}

impl<R, D> ServeInline for Serving<R, D>
where
    R: GuestAddressSpace<T: Send> + Send + 'static,
    D: GuestAddressSpace<T: Send> + Send + 'static,
{
    fn serve_inline(&mut self) -> Inline {
        let Self { worker, poller, limit } = self;
        if worker.serve_inline(*limit, poller) { Inline::Done } else { Inline::NeedsThread }
    }
}

/// Serves a queue until it is stopped or can't be served any more. Gives back its engine, and whether that can be used
/// again.
fn serve<R, D>(
    serving: Serving<R, D>,
    slot: InlineSlot<Serving<R, D>>,
    waiter: &mut Waiter,
    mut reporter: Reporter,
) -> (Box<dyn Engine>, bool)
where
    R: GuestAddressSpace<T: Send> + Send + 'static,
    D: GuestAddressSpace<T: Send> + Send + 'static,
{
    let mut waiter = EngineWaiter::new(waiter, serving.worker.as_fd());
    let mut owner = slot.put(serving);
    let mut waited = Ok(());
    while waited.is_ok() {
        let (pause, then) = owner.with(|Serving { worker, poller, .. }| {
            let mut its = BlockWaiter { waiter: &mut waiter, reporter: &mut reporter };
            let pause = worker.work(poller, &mut its);
            let waited = match pause {
                Pause::Waits(timeout) => its.wait(worker.engine_in_flight(), timeout),
                Pause::Idle | Pause::Stopped => Ok(()),
            };
            (pause, waited)
        });
        waited = match pause {
            Pause::Stopped => break,
            // The guest's thread may serve the queue meanwhile.
            Pause::Idle => waiter.wait(None, None),
            Pause::Waits(_) => then,
        };
    }
    let mut worker = owner.end().worker;
    let mut its = BlockWaiter { waiter: &mut waiter, reporter: &mut reporter };
    let (id, queue) = (its.reporter.id, its.reporter.index);
    match worker.finish(waited, &mut its) {
        Ok(()) => {}
        // The worker leaks the guards of what is in use, which keep it mapped.
        Err(ServeError::StillInUse(error)) => {
            reporter.engine_is_whole = false;
            error!(%id, error = %chain(&error), "a queue's I/O has not come back from the kernel, so the guest's memory stays mapped: `xl destroy` the guest, and restart xen-virtio-blk when no guest is served");
        }
        Err(error) => {
            error!(%id, queue, error = %chain(&error), "a queue is no longer served, and its guest was asked to reset the disk (DEVICE_NEEDS_RESET): if it does not, `xl destroy` and `xl create` it");
        }
    }
    (worker.into_engine(), reporter.engine_is_whole)
}

/// Logs the events of a queue's thread.
fn log_events(id: DeviceId, queue: u16, log: LogLimit) -> impl FnMut(&ThreadEvent) + Send {
    move |event| match event {
        ThreadEvent::NotPinned { cpu, source } => {
            if let Some(dropped) = log.allow() {
                warn!(%id, queue, %cpu, error = %chain(source), dropped, "a queue's thread can't be bound to its CPU, and runs on any: correct --cpus, or cpus in the --config file");
            }
        }
        // The queue asked for a reset when it was dropped.
        event => {
            error!(%id, queue, error = %chain(event), "a queue is no longer served, and its guest was asked to reset the disk (DEVICE_NEEDS_RESET): if it does not, `xl destroy` and `xl create` it");
        }
    }
}

/// Logs what the worker reports.
struct Reporter {
    id: DeviceId,
    index: u16,
    log: LogLimit,
    /// The engine can serve the queue again.
    engine_is_whole: bool,
}

/// Waits for kicks, completions and the stop, and reports.
struct BlockWaiter<'a, 'w> {
    waiter: &'a mut EngineWaiter<'w>,
    reporter: &'a mut Reporter,
}

impl QueueWaiter for BlockWaiter<'_, '_> {
    fn is_stopped(&self) -> bool {
        self.waiter.is_stopped()
    }

    fn wait(
        &mut self,
        engine: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.waiter.wait(engine, timeout)
    }

    fn on_host_error(&mut self, error: &HostError) {
        if let Some(dropped) = self.reporter.log.allow() {
            warn!(id = %self.reporter.id, error = %chain(&error), dropped, "a request failed, and the guest got an I/O error: check the image's storage");
        }
    }

    fn on_engine_fault(&mut self, fault: &EngineFault) {
        self.reporter.engine_is_whole = false;
        warn!(id = %self.reporter.id, queue = self.reporter.index, fault = %chain(fault), "io_uring failed in a queue's thread");
    }

    // Once for a disk, and the guest has no say in it: without a limit.
    fn on_durability_lost(&mut self, error: &HostError) {
        error!(
            id = %self.reporter.id,
            error = %chain(&error),
            "the image's storage failed to keep what the guest wrote: every flush fails from now on; \
             check the storage, then destroy and create the guest, and check its file systems"
        );
    }

    fn on_broken(&mut self, fault: RingFault) {
        if let Some(dropped) = self.reporter.log.allow() {
            warn!(id = %self.reporter.id, queue = self.reporter.index, %fault, dropped, "the guest's driver broke the ring with an invalid entry: the queue is stopped until the driver resets the disk");
        }
    }
}

#[cfg(test)]
mod tests;
