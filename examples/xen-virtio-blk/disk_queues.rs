//! The queues of one disk: the threads that serve them, and what these need.

use std::{
    error::Error,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use backend_process::{chain, limits};
use tracing::{info, warn};
use virtio_blk_dev::{BlockDevice, Engine, RateLimiter, RateLimits, UringError};
use virtio_dev::{Interrupt, QueueConfig, Queues, Stop};
use virtio_worker::{LogLimit, Wake};
use xen_virtio_backend::{
    DeviceMemory, GrantCopies, Host, Notices, Refusal,
    node::{DeviceId, DeviceNode, Sharing},
};
use xen_virtio_sandbox::ThreadFilters;

use crate::{
    live_figures::LiveFigures,
    settings::DiskSettings,
    storage::Storage,
    worker_thread::{Idle, ServingSpec, StartError, WorkerThread},
};

/// A queue that stops takes no longer, if its storage has nothing in hand: it is waited for, as the write that stops it is
/// answered sooner so.
const SOON: Duration = Duration::from_millis(1);

/// Marks an address that is a grant (`XEN_GRANT_DMA_ADDR_OFF`, Linux drivers/xen/grant-dma-ops.c).
const GRANT: u64 = 1 << 63;

/// Said of a guest that was to grant its memory and doesn't.
const NOT_GRANTED: &str = "the guest's driver gives plain addresses, though it was told to grant its memory \
     (grant_usage=1): its kernel lacks CONFIG_XEN_VIRTIO, as Debian's do; write grant_usage=0 in the disk's line of \
     xl.cfg, or boot a kernel with that option";

/// The queues of one disk. Dropping them finishes what is in flight and ends their threads.
pub(crate) struct DiskQueues<H: Host> {
    id: DeviceId,
    settings: DiskSettings,
    memory: DeviceMemory<H>,
    storage: Storage,
    limiter: Arc<RateLimiter>,
    workers: Vec<Option<WorkerThread>>,
    /// Queues whose workers were told to end, and whose end is not waited for.
    draining: Vec<u16>,
    /// What the workers are lent, of the queues that are not served. Made with the disk, and kept over resets: when
    /// the guest starts its queues, a descriptor that can't be had would be a guest that hangs in its boot.
    idle: Vec<Option<Idle>>,
    figures: Arc<LiveFigures>,
    /// The guest is to grant its memory.
    grants: bool,
    notices: Notices,
    filters: ThreadFilters,
    /// The features of the driver that is active, or of the last one that was.
    negotiated: u64,
    /// That the guest doesn't grant its memory has been said.
    told: bool,
    limit: LogLimit,
}

impl<H: Host> DiskQueues<H> {
    /// Queues that nobody uses yet. The error says what they lack.
    pub(crate) fn new(
        node: &DeviceNode,
        settings: DiskSettings,
        storage: Storage,
        memory: DeviceMemory<H>,
        figures: Arc<LiveFigures>,
        notices: Notices,
        filters: ThreadFilters,
    ) -> Result<Self, Refusal> {
        let count = usize::from(settings.queues);
        let mut queues = Self {
            id: node.id,
            limiter: Arc::new(RateLimiter::new(&settings.limits)),
            settings,
            memory,
            storage,
            workers: (0..count).map(|_| None).collect(),
            draining: Vec::new(),
            idle: Vec::new(),
            figures,
            grants: node.sharing == Sharing::Grant,
            notices,
            filters,
            negotiated: 0,
            told: false,
            limit: LogLimit::new(),
        };
        queues.idle =
            (0..count).map(|_| queues.first_idle().map(Some)).collect::<Result<_, _>>()?;
        Ok(queues)
    }

    /// How often what the guest does may be logged.
    pub(crate) fn limit(&self) -> &LogLimit {
        &self.limit
    }

    /// The image behind them.
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The guest's memory, as they reach it.
    pub(crate) fn memory(&self) -> &DeviceMemory<H> {
        &self.memory
    }

    /// The features of the driver that is active, or of the last one that was.
    pub(crate) fn negotiated(&self) -> u64 {
        self.negotiated
    }

    /// The limits that hold.
    pub(crate) fn limits(&self) -> RateLimits {
        self.limiter.limits()
    }

    /// Sets the limits. The workers are woken, as one may sleep until the old limits allow its next request.
    pub(crate) fn set_limits(&mut self, limits: RateLimits) {
        self.limiter.set(&limits);
        self.workers.iter().flatten().for_each(WorkerThread::kick);
    }

    /// Has the threads finish what is in flight and end, without waiting for them.
    pub(crate) fn begin_stop(&mut self) {
        self.workers.iter().flatten().for_each(WorkerThread::begin_stop);
    }

    /// Finishes what is in flight, and waits for the end of the threads.
    pub(crate) fn stop_all(&mut self) {
        self.begin_stop();
        (0..self.workers.len()).for_each(|index| self.join(index));
    }

    /// Whether no thread is left.
    pub(crate) fn are_stopped(&self) -> bool {
        self.workers.iter().flatten().all(WorkerThread::is_stopped)
    }

    /// The queues that were [`Draining`](Stop::Draining) and have stopped.
    pub(crate) fn take_stopped(&mut self) -> Vec<u16> {
        let is_stopped = |queue: &u16| match &self.workers[usize::from(*queue)] {
            Some(worker) => worker.is_stopped(),
            None => true,
        };
        let stopped: Vec<_> = self.draining.iter().copied().filter(is_stopped).collect();
        self.draining.retain(|queue| !stopped.contains(queue));
        stopped.iter().for_each(|queue| self.join(usize::from(*queue)));
        stopped
    }

    /// What the worker of a queue needs, of a disk that is being attached, and can still be refused.
    fn first_idle(&self) -> Result<Idle, Refusal> {
        let engine = Some(self.first_engine()?);
        let wake = Wake::new().map_err(|error| no_descriptors(&error))?;
        Ok(Idle { engine, wake })
    }

    fn first_engine(&self) -> Result<Box<dyn Engine>, Refusal> {
        let (engine, lacking) = self.storage.engine(self.settings.engine);
        let source = lacking.as_ref().and_then(|error| error.source()?.downcast_ref());
        if let Some(error) = source.filter(|error| limits::is_out_of_files(error)) {
            return Err(no_descriptors(error));
        }
        Ok(self.with_warning(engine, lacking))
    }

    fn new_engine(&self) -> Box<dyn Engine> {
        let (engine, lacking) = self.storage.engine(self.settings.engine);
        self.with_warning(engine, lacking)
    }

    fn with_warning(
        &self,
        engine: Box<dyn Engine>,
        lacking: Option<UringError>,
    ) -> Box<dyn Engine> {
        if let Some(error) = lacking
            && let Some(dropped) = self.limit.allow()
        {
            warn!(id = %self.id, error = %chain(&error), dropped, "io_uring can't be used: a queue is served by the engine sync");
        }
        engine
    }

    fn serve(
        &mut self,
        device: &BlockDevice,
        config: &QueueConfig,
        interrupt: Interrupt,
    ) -> Result<WorkerThread, StartError> {
        let index = usize::from(config.index);
        let Idle { engine, wake } = self.idle[index].take().expect("of a queue without a worker");
        let spec = ServingSpec {
            id: self.id,
            engine: engine.unwrap_or_else(|| self.new_engine()),
            wake,
            limiter: Arc::clone(&self.limiter),
            poll: self.settings.poll,
            cpu: self.settings.cpus.of_queue(config.index),
            log: self.limit.clone(),
            filters: self.filters.clone(),
        };
        let requests = self.memory.requests();
        let bulk = self.grants.then(|| GrantCopies::new(&requests) as Box<_>);
        let spaces = (self.memory.rings(), requests, bulk);
        WorkerThread::start(config, spaces, interrupt, &device.params(), spec).map_err(
            |(error, idle)| {
                self.idle[index] = Some(idle);
                error
            },
        )
    }

    /// Takes what a queue's worker was lent back from it. Waits for its end.
    fn join(&mut self, index: usize) {
        if let Some(worker) = self.workers[index].take() {
            self.idle[index] = Some(worker.stop());
            self.figures.stopped(index);
        }
    }
}

impl<H: Host> Queues<BlockDevice> for DiskQueues<H> {
    fn driver_ok(&mut self, features: u64) {
        self.negotiated = features;
        // A guest may reset its device as often as it likes.
        if let Some(dropped) = self.limit.allow() {
            info!(
                id = %self.id,
                features = format_args!("{features:#x}"),
                dropped,
                "the guest's driver is ready"
            );
        }
    }

    fn start(&mut self, device: &BlockDevice, config: &QueueConfig, interrupt: Interrupt) {
        let index = usize::from(config.index);
        match self.serve(device, config, interrupt.clone()) {
            // A kick that came before the queue was ready counts.
            Ok(worker) => {
                worker.kick();
                self.figures.started(index, worker.counters());
                self.workers[index] = Some(worker);
            }
            Err(error) => {
                let rings = [config.desc_table, config.avail_ring, config.used_ring];
                if self.grants && rings.iter().any(|address| address & GRANT == 0) && !self.told {
                    self.told = true;
                    warn!(id = %self.id, "{NOT_GRANTED}");
                    self.notices.tell(self.id, NOT_GRANTED);
                }
                if let Some(dropped) = self.limit.allow() {
                    warn!(id = %self.id, queue = index, error = %chain(&error), dropped, "the guest set up a queue that can't be served, and was asked to reset the disk (DEVICE_NEEDS_RESET): if it does not, `xl destroy` and `xl create` it");
                }
                interrupt.needs_reset();
            }
        }
    }

    fn notify(&mut self, queue: u16) {
        if let Some(Some(worker)) = self.workers.get(usize::from(queue)) {
            worker.notify();
        }
    }

    fn stop(&mut self, queue: u16) -> Stop {
        let index = usize::from(queue);
        if let Some(worker) = &self.workers[index] {
            worker.begin_stop();
            let begin = Instant::now();
            while !worker.is_stopped() {
                if begin.elapsed() > SOON {
                    self.draining.push(queue);
                    return Stop::Draining;
                }
                thread::yield_now();
            }
            self.join(index);
        }
        Stop::Done
    }

    /// The driver may have switched its cache off: what was written must become stable now.
    fn config_written(&mut self) {
        self.workers.iter().flatten().for_each(WorkerThread::kick);
    }

    fn failed(&mut self) {
        if let Some(dropped) = self.limit.allow() {
            warn!(id = %self.id, dropped, "the guest's driver has set FAILED: the disk is not served until the driver resets it; see the guest's kernel log for the reason");
        }
    }
}

impl<H: Host> Drop for DiskQueues<H> {
    fn drop(&mut self) {
        self.stop_all();
    }
}

/// Why a disk can't be attached that would lack descriptors later.
fn no_descriptors(error: &io::Error) -> Refusal {
    let advice = limits::advice(error).unwrap_or_else(|| error.to_string());
    Refusal::new(format!("no file descriptor for its queues: {advice}"))
}
