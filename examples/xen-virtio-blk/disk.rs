//! One disk of one guest: its registers, and the threads that serve its queues.

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use backend_process::{chain, limits};
use tracing::{Level, debug, info, warn};
use virtio_blk_dev::{
    BlockDevice, Engine, ImageWarning, RateLimiter, RateLimits, RequestKind, UringError,
};
use virtio_mmio_dev::{Effect, Ignored, MmioTransport, QueueConfig, VirtioDevice};
use virtio_worker::{LogLimit, Wake};
use xen_foreignmem::DomainMemory;
use xen_virtio_backend::{
    Device, Host, Parts, Refusal,
    guest::Notices,
    node::{DeviceId, DeviceNode},
};

use crate::{
    block_config::block_config,
    figures::Figures,
    nodes::DiskNodes,
    settings::DiskSettings,
    storage::Storage,
    worker_thread::{Idle, Serving, StartError, WorkerThread},
};

/// Marks an address that is a grant (`XEN_GRANT_DMA_ADDR_OFF`, Linux drivers/xen/grant-dma-ops.c).
const GRANT: u64 = 1 << 63;

/// Said of a guest that was to grant its memory and doesn't.
const NOT_GRANTED: &str = "the guest's driver gives plain addresses, though it was told to grant its memory \
     (grant_usage=1): its kernel lacks CONFIG_XEN_VIRTIO, as Debian's do; write grant_usage=0 in the disk's line of \
     xl.cfg, or boot a kernel with that option";

/// A disk at work. Dropping it finishes what is in flight and ends its threads.
pub struct Disk<H: Host> {
    id: DeviceId,
    settings: DiskSettings,
    transport: MmioTransport<BlockDevice>,
    memory: DomainMemory<H::Memory, H::Grants>,
    storage: Storage,
    /// The operator was told that the image was deleted.
    told_deleted: AtomicBool,
    limiter: Option<Arc<RateLimiter>>,
    workers: Vec<Option<WorkerThread>>,
    /// What the workers are lent, of the queues that are not served. Made with the disk, and kept over resets: when
    /// the guest starts its queues, a descriptor that can't be had would be a guest that hangs in its boot.
    idle: Vec<Option<Idle>>,
    figures: Arc<Figures>,
    /// The guest is to grant its memory.
    grants: bool,
    notices: Notices,
    /// The features of the driver that is active, or of the last one that was.
    negotiated: u64,
    /// That it doesn't has been said.
    told: bool,
    limit: LogLimit,
}

impl<H: Host> Disk<H> {
    /// A disk in its reset state. The error says what in its settings can't be.
    pub(crate) fn new(
        node: &DeviceNode,
        nodes: &DiskNodes,
        settings: DiskSettings,
        storage: Storage,
        parts: Parts<H>,
    ) -> Result<Self, Refusal> {
        let Parts { memory, interrupt, notices } = parts;
        let (id, image) = (node.id, storage.image());
        let config = block_config(node, nodes, &settings, &storage)?;
        let device = BlockDevice::new(image.capacity(), &config).map_err(Refusal::new)?;
        let figures = Arc::new(Figures::new(id, settings.queues.into(), device.durability()));
        let raised = Arc::clone(&figures);
        let line = move || {
            raised.count_interrupt();
            if let Err(error) = interrupt.raise() {
                // Happens once, while the guest is being destroyed.
                debug!(%id, irq = interrupt.irq(), error = %chain(&error), "the interrupt could not be raised");
            }
        };
        let transport = MmioTransport::new(device, line).map_err(Refusal::new)?;
        let queues = transport.device().queue_max_sizes().len();
        let mut disk = Self {
            id,
            told_deleted: AtomicBool::new(false),
            limiter: (settings.limits != RateLimits::default())
                .then(|| Arc::new(RateLimiter::new(&settings.limits))),
            settings,
            transport,
            memory,
            storage,
            workers: (0..queues).map(|_| None).collect(),
            idle: Vec::new(),
            figures,
            grants: node.grants,
            notices,
            negotiated: 0,
            told: false,
            limit: LogLimit::new(),
        };
        disk.idle = (0..queues).map(|_| disk.first_idle().map(Some)).collect::<Result<_, _>>()?;
        Ok(disk)
    }

    /// What it has done so far, for whoever wants to know.
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// Once: what the guest writes is gone when the disk is.
    fn tell_if_deleted(&self) {
        if self.storage.image().is_deleted() && !self.told_deleted.swap(true, Ordering::Relaxed) {
            let id = self.id;
            warn!(
                %id,
                "the image file was deleted: its contents are lost when the disk is closed; copy them before that, \
                 from the descriptor that `ls -l /proc/{}/fd` shows as deleted",
                std::process::id()
            );
        }
    }

    fn start_worker(&mut self, index: usize) {
        let Ok(number) = u16::try_from(index) else { return };
        let Some(config) = self.transport.queue(number) else { return };
        let started = self.serve(index, &config);
        match started {
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
                self.transport.interrupt().needs_reset();
            }
        }
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

    fn serve(&mut self, index: usize, config: &QueueConfig) -> Result<WorkerThread, StartError> {
        let Idle { engine, wake } = self.idle[index].take().expect("of a queue without a worker");
        let serving = Serving {
            id: self.id,
            engine: engine.unwrap_or_else(|| self.new_engine()),
            wake,
            limiter: self.limiter.clone(),
            poll: self.settings.poll,
            cpu: self.settings.cpus.of_queue(config.index),
            log: self.limit.clone(),
        };
        let params = self.transport.device().params();
        let interrupt = self.transport.interrupt();
        WorkerThread::start(config, &self.memory, interrupt, &params, serving).map_err(
            |(error, idle)| {
                self.idle[index] = Some(idle);
                error
            },
        )
    }

    /// What a driver does that this device does not take is the first trace of one that stops
    /// half-way.
    fn log_ignored(&self, offset: u64, data: &[u8], why: Ignored) {
        if tracing::enabled!(Level::DEBUG)
            && let Some(dropped) = self.limit.allow()
        {
            debug!(
                id = %self.id,
                offset = format_args!("{offset:#x}"),
                ?data,
                driver_features = format_args!("{:#x}", self.transport.driver_features()),
                %why,
                dropped,
                "a write of the guest to its registers was ignored"
            );
        }
    }

    fn stop_workers(&mut self) {
        for index in 0..self.workers.len() {
            self.stop_worker(index);
        }
    }

    fn stop_worker(&mut self, index: usize) {
        if let Some(worker) = self.workers[index].take() {
            self.idle[index] = Some(worker.stop());
            self.figures.stopped(index);
        }
    }
}

impl<H: Host> Device for Disk<H> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.figures.count_ioreq();
        self.transport.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<u16> {
        self.figures.count_ioreq();
        match self.transport.write(offset, data) {
            Effect::Notify(queue) => return Some(queue),
            Effect::Activate => {
                self.negotiated = self.transport.features();
                // A guest may reset its device as often as it likes.
                if let Some(dropped) = self.limit.allow() {
                    info!(
                        id = %self.id,
                        features = format_args!("{:#x}", self.transport.features()),
                        dropped,
                        "the guest's driver is ready"
                    );
                }
                for index in 0..self.workers.len() {
                    self.start_worker(index);
                }
            }
            Effect::QueueReady(queue) => self.start_worker(usize::from(queue)),
            Effect::QueueStop(queue) => {
                self.stop_worker(usize::from(queue));
                self.transport.queue_stopped(queue);
            }
            Effect::Failed => {
                self.stop_workers();
                if let Some(dropped) = self.limit.allow() {
                    warn!(id = %self.id, dropped, "the guest's driver has set FAILED: the disk is not served until the driver resets it; see the guest's kernel log for the reason");
                }
            }
            Effect::Reset => {
                self.stop_workers();
                self.transport.reset_done();
            }
            Effect::Ignored(why) => self.log_ignored(offset, data, why),
            // The driver may have switched its cache off: what was written must become stable now.
            Effect::ConfigWritten => self.workers.iter().flatten().for_each(WorkerThread::kick),
            Effect::None => {}
        }
        None
    }

    fn kick(&mut self, queue: u16) {
        if let Some(Some(worker)) = self.workers.get(usize::from(queue)) {
            worker.kick();
        }
    }

    /// Takes on the size that the image has now, and tells the guest.
    fn refresh(&mut self) {
        self.tell_if_deleted();
        let (id, old) = (self.id, self.transport.device().capacity());
        let new = match self.storage.refresh_capacity() {
            Ok(new) => new,
            Err(error) => {
                warn!(%id, error = %chain(&error), "the image's size can't be read, and the disk keeps the size it has: check the image's storage");
                return;
            }
        };
        if new == old {
            info!(%id, bytes = old, "the image's size has not changed");
            return;
        }
        if let Err(error) = self.transport.device_mut().set_capacity(new) {
            warn!(%id, error = %chain(&error), "the image has a size that no disk can have, and the disk keeps the size it has: give the image another size, as with `truncate -s`");
            return;
        }
        self.transport.config_changed();
        for warning in self.storage.image().warnings() {
            if matches!(warning, ImageWarning::HiddenTail { .. }) {
                warn!(%id, "{warning}");
            }
        }
        if new > old {
            info!(%id, from = old, to = new, "the disk has grown");
        } else {
            warn!(%id, from = old, to = new, "the disk is smaller than before: the guest's data beyond its new end is lost");
        }
    }

    fn report(&self) {
        self.tell_if_deleted();
        let stats = self.figures.stats();
        let memory = self.memory.stats();
        info!(
            id = %self.id,
            features = format_args!("{:#x}", self.negotiated),
            driver = if self.transport.features() == 0 { "none" } else { "active" },
            requests = stats.requests(),
            reads = stats[RequestKind::Read].requests,
            writes = stats[RequestKind::Write].requests,
            flushes = stats[RequestKind::Flush].requests,
            discards = stats[RequestKind::Discard].requests,
            zeroes = stats[RequestKind::WriteZeroes].requests,
            bytes_read = stats[RequestKind::Read].bytes,
            bytes_written = stats[RequestKind::Write].bytes,
            errors = stats.errors(),
            host_errors = stats.host_errors,
            flush_failed = self.figures.has_failed_flush(),
            in_flight = stats.in_flight,
            throttled = stats.throttled,
            ioreqs = self.figures.ioreqs(),
            interrupts = self.figures.interrupts(),
            interrupts_suppressed = stats.interrupts_suppressed,
            ?memory,
            "disk totals"
        );
        self.figures.report_latencies(&stats);
    }
}

/// Why a disk can't be attached that would lack descriptors later.
fn no_descriptors(error: &io::Error) -> Refusal {
    let advice = limits::advice(error).unwrap_or_else(|| error.to_string());
    Refusal::new(format!("no file descriptor for its queues: {advice}"))
}

impl<H: Host> Drop for Disk<H> {
    fn drop(&mut self) {
        self.stop_workers();
        self.report();
    }
}
