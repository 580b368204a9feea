//! One disk of one guest: its registers.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use backend_process::chain;
use tracing::{Level, debug, info, warn};
use virtio_blk_dev::{BlockDevice, ImageWarning, RequestKind};
use virtio_dev::{Ignored, PendingWrite, Queues, Transport, WriteOutcome};
use xen_virtio_backend::{
    Device, DeviceTransport, Host, Parts, Refusal, RegisterAddress,
    node::{DeviceId, DeviceNode},
};

use crate::{
    block_config::block_config, disk_queues::DiskQueues, figures::Figures,
    live_figures::LiveFigures, nodes::DiskNodes, order::Order, rate::describe_limits,
    settings::DiskSettings, storage::Storage,
};

/// A disk at work. Dropping it finishes what is in flight and ends its threads.
pub struct Disk<H: Host> {
    id: DeviceId,
    transport: DeviceTransport<BlockDevice>,
    queues: DiskQueues<H>,
    figures: Arc<LiveFigures>,
    /// The operator was told that the image was deleted.
    told_deleted: AtomicBool,
}

impl<H: Host> Disk<H> {
    /// A disk in its reset state.
    ///
    /// # Errors
    /// Why it can't be served.
    pub fn new(
        node: &DeviceNode,
        nodes: &DiskNodes,
        settings: DiskSettings,
        storage: Storage,
        parts: Parts<H>,
    ) -> Result<Self, Refusal> {
        let Parts { memory, transport, notices, filters } = parts;
        let (id, image) = (node.id, storage.image());
        let config = block_config(node, nodes, &settings, &storage)?;
        let device = BlockDevice::new(image.capacity(), &config).map_err(Refusal::new)?;
        let figures = Arc::new(LiveFigures::new(settings.queues.into(), device.durability()));
        let raised = Arc::clone(&figures);
        let transport = transport.build(device, move || raised.count_interrupt())?;
        let its = Arc::clone(&figures);
        let queues = DiskQueues::new(node, settings, storage, memory, its, notices, filters)?;
        Ok(Self { id, transport, queues, figures, told_deleted: AtomicBool::new(false) })
    }

    /// Takes on the size that the image has now, and tells the guest. What has come of it, in words.
    fn resize(&mut self) -> Result<String, String> {
        self.tell_if_deleted();
        let (id, old) = (self.id, self.transport.control().device().capacity());
        let new = match self.queues.storage().refresh_capacity() {
            Ok(new) => new,
            Err(error) => {
                let error = chain(&error).to_string();
                warn!(%id, error, "the image's size can't be read, and the disk keeps the size it has: check the image's storage");
                return Err(format!("the image's size can't be read, check its storage: {error}"));
            }
        };
        if new == old {
            info!(%id, bytes = old, "the image's size has not changed");
            return Ok(format!("{old} bytes, as before"));
        }
        if let Err(error) = self.transport.device_mut().set_capacity(new) {
            let error = chain(&error).to_string();
            warn!(%id, error, "the image has a size that no disk can have, and the disk keeps the size it has: give the image another size, as with `truncate -s`");
            return Err(format!(
                "the image has a size that no disk can have, give it another one: {error}"
            ));
        }
        self.transport.control().config_changed();
        for warning in self.queues.storage().image().warnings() {
            if matches!(warning, ImageWarning::HiddenTail { .. }) {
                warn!(%id, "{warning}");
            }
        }
        if new > old {
            info!(%id, from = old, to = new, "the disk has grown");
        } else {
            warn!(%id, from = old, to = new, "the disk is smaller than before: the guest's data beyond its new end is lost");
        }
        Ok(format!("{new} bytes, {old} before"))
    }

    /// Once: what the guest writes is gone when the disk is.
    fn tell_if_deleted(&self) {
        if self.queues.storage().image().is_deleted()
            && !self.told_deleted.swap(true, Ordering::Relaxed)
        {
            let id = self.id;
            warn!(
                %id,
                "the image file was deleted: its contents are lost when the disk is closed; copy them before that, \
                 from the descriptor that `ls -l /proc/{}/fd` shows as deleted",
                std::process::id()
            );
        }
    }

    /// What a driver does that this device does not take is the first trace of one that stops
    /// half-way.
    fn log_ignored(&self, register: RegisterAddress, data: &[u8], why: Ignored) {
        if tracing::enabled!(Level::DEBUG)
            && let Some(dropped) = self.queues.limit().allow()
        {
            debug!(
                id = %self.id,
                space = register.space(),
                offset = format_args!("{:#x}", register.offset()),
                ?data,
                driver_features = format_args!("{:#x}", self.transport.control().driver_features()),
                %why,
                dropped,
                "a write of the guest to its registers was ignored"
            );
        }
    }
}

impl<H: Host> Device for Disk<H> {
    type Figures = Figures;
    type Order = Order;

    fn read(&mut self, register: RegisterAddress, data: &mut [u8]) {
        self.figures.count_ioreq();
        self.transport.read(register, data);
    }

    fn write(&mut self, register: RegisterAddress, data: &[u8]) -> WriteOutcome {
        self.figures.count_ioreq();
        let outcome = self.transport.write(register, data, &mut self.queues);
        if let WriteOutcome::Ignored(why) = outcome {
            self.log_ignored(register, data, why);
        }
        outcome
    }

    fn bar(&self) -> Option<Range<u64>> {
        self.transport.bar()
    }

    fn is_pending(&mut self, write: PendingWrite) -> bool {
        for queue in self.queues.take_stopped() {
            self.transport.queue_stopped(queue);
        }
        self.transport.control().is_pending(write)
    }

    fn kick(&mut self, queue: u16) {
        self.queues.notify(queue);
    }

    fn begin_stop(&mut self) {
        self.queues.begin_stop();
    }

    fn is_stopped(&self) -> bool {
        self.queues.are_stopped()
    }

    fn refresh(&mut self) {
        // It was logged.
        let _ = self.resize();
    }

    fn order(&mut self, order: Order) -> Result<String, String> {
        match order {
            Order::Resize => self.resize(),
            Order::Limit(change) => {
                let limits = change.of(self.queues.limits());
                self.queues.set_limits(limits);
                let text = describe_limits(&limits);
                info!(id = %self.id, limits = text, "the disk has other limits, as an operator wants");
                Ok(text)
            }
        }
    }

    fn report(&self) {
        self.tell_if_deleted();
        let figures = self.figures();
        let stats = &figures.stats;
        let memory = self.queues.memory().stats();
        info!(
            id = %self.id,
            features = format_args!("{:#x}", self.queues.negotiated()),
            driver = if figures.driver { "active" } else { "none" },
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
            flush_failed = figures.flush_failed,
            in_flight = stats.in_flight,
            throttled = stats.throttled,
            stalled_ms = stats.stalled.as_millis(),
            ioreqs = figures.ioreqs,
            interrupts = figures.interrupts,
            interrupts_suppressed = stats.interrupts_suppressed,
            ?memory,
            "disk totals"
        );
        figures.report_latencies(self.id);
    }

    fn figures(&self) -> Figures {
        let memory = self.queues.memory().stats();
        Figures {
            driver: self.transport.control().features() != 0,
            limits: self.queues.limits(),
            mapped_bytes: memory.bytes,
            map_refusals: memory.refusals,
            ..self.figures.read()
        }
    }
}

impl<H: Host> Drop for Disk<H> {
    fn drop(&mut self) {
        self.queues.stop_all();
        self.report();
    }
}
