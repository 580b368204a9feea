//! What a guest's thread does: it answers traps, and attaches and detaches devices.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};

use backend_process::chain;
use tracing::{debug, error, info, warn};
use virtio_worker::{LogLimit, Wake};
use xen_ioreq::{DomId, IoreqServer, Liveness, RequestKind};

use super::{
    command::{Attachment, Command},
    error::GuestError,
    map_budget::MapBudget,
    memory::GuestMemory,
    notices::Notices,
    unmapper::Unmapper,
};
use crate::{
    backend::{Backend, Built, Device, Parts},
    host::{Handles, Host, InterruptLine},
    node::DeviceId,
};

/// Failures in a row after which a guest's event channels are given up.
const MAX_FAILURES: u32 = 16;

/// How many requests are answered before the thread looks at what else there is to do.
const MAX_REQUESTS: u32 = 256;

/// A device and where its registers are.
struct Placed<D> {
    window: RangeInclusive<u64>,
    device: D,
}

/// What the guest's thread owns.
pub(super) struct Service<H: Host, B: Backend> {
    domid: DomId,
    // Before the server: a device's queues end before its server does.
    devices: BTreeMap<DeviceId, Placed<B::Device<H>>>,
    server: IoreqServer<H::Model, H::Memory, H::Events>,
    /// Where windows without a device behind them begin: reads give all ones, which no driver takes for a
    /// virtio device. Unanswered, an access would be an external abort in the guest.
    empty: BTreeSet<u64>,
    memory: GuestMemory<H>,
    unmapper: Unmapper,
    handles: Handles<H>,
    notices: Notices,
    limit: LogLimit,
}

impl<H: Host, B: Backend> Service<H, B> {
    /// Creates the guest's IOREQ server. Nothing is asked of it before its first window.
    pub(super) fn new(
        domid: DomId,
        handles: Handles<H>,
        budget: MapBudget,
        notices: Notices,
    ) -> Result<Self, GuestError> {
        let server = IoreqServer::create(
            Arc::clone(&handles.model),
            Arc::clone(&handles.memory),
            Arc::clone(&handles.events),
        )?;
        // The server's page is mapped.
        let budget = budget.bytes();
        info!(domid, budget_mib = budget >> 20, "the guest's memory is mapped up to this limit");
        Ok(Self {
            domid,
            server,
            memory: GuestMemory::new(&handles, budget),
            unmapper: Unmapper::new(domid),
            handles,
            notices,
            devices: BTreeMap::new(),
            empty: BTreeSet::new(),
            limit: LogLimit::new(),
        })
    }

    /// What tells whether the guest still lives.
    pub(super) fn liveness(&self) -> Liveness<H::Model> {
        self.server.liveness()
    }

    /// Answers the guest and `inbox`, for which `wake` wakes it, until it is told to stop.
    pub(super) fn run(mut self, inbox: &Receiver<Command<B>>, mut wake: Wake) {
        let mut failures = 0;
        loop {
            let more = match self.answer_requests() {
                Ok(more) => {
                    failures = 0;
                    more
                }
                Err(error) => {
                    failures += 1;
                    if failures == MAX_FAILURES || matches!(self.liveness().is_alive(), Ok(false)) {
                        // The guest is gone, or its event channels are: nothing more can be answered.
                        warn!(domid = self.domid, error = %chain(&error), "the guest is no longer served, as it has ended or its event channels failed: if it still runs, `xl destroy` and `xl create` it");
                        return;
                    }
                    warn!(domid = self.domid, error = %chain(&error), "an access of the guest to a device's registers may be unanswered: if one of its vCPUs hangs, `xl destroy` and `xl create` it");
                    false
                }
            };
            let timeout = more.then_some(Duration::ZERO);
            if let Err(error) = wake.wait(Some(self.server.as_fd()), timeout) {
                error!(domid = self.domid, error = %chain(&error), "poll failed, and the guest is no longer served: `xl destroy` and `xl create` it");
                return;
            }
            for command in inbox.try_iter() {
                match command {
                    Command::Attach(attachment, reply) => {
                        let _ = reply.send(self.attach(*attachment));
                    }
                    Command::Reserve(window, reply) => {
                        let base = *window.start();
                        let claimed = self.claim(window);
                        if claimed.is_ok() {
                            self.empty.insert(base);
                        }
                        let _ = reply.send(claimed);
                    }
                    Command::Release(window, reply) => {
                        self.release(window);
                        let _ = reply.send(());
                    }
                    Command::Detach(id, reply) => {
                        self.detach(id);
                        let _ = reply.send(());
                    }
                    Command::Report => {
                        self.devices.values().for_each(|placed| placed.device.report());
                    }
                    Command::Refresh => {
                        self.devices.values_mut().for_each(|placed| placed.device.refresh());
                    }
                    Command::Stop => return,
                }
            }
        }
    }

    fn attach(&mut self, attachment: Attachment<B>) -> Result<Arc<B::Figures>, GuestError> {
        let Attachment { node, config, resources } = attachment;
        let parts = Parts {
            memory: self.memory.for_device(node.grants),
            interrupt: InterruptLine::new(Arc::clone(&self.handles.model), node.irq),
            notices: self.notices.clone(),
        };
        let Built { device, figures } = B::build(&node, config, resources, parts)
            .map_err(|source| GuestError::Device { id: node.id, source })?;
        self.claim(node.window())?;
        self.empty.remove(&node.base);
        self.devices.insert(node.id, Placed { window: node.window(), device });
        Ok(figures)
    }

    /// Has the guest's accesses to a window sent here, unless they are already and nobody has use for them.
    fn claim(&mut self, window: RangeInclusive<u64>) -> Result<(), GuestError> {
        if !self.empty.contains(window.start()) {
            self.server.map_range(window)?;
        }
        Ok(self.server.enable()?)
    }

    /// The window stays claimed: the guest may live on, and its driver may look there.
    fn detach(&mut self, id: DeviceId) {
        let Some(placed) = self.devices.remove(&id) else { return };
        self.empty.insert(*placed.window.start());
        drop(placed);
        if self.devices.is_empty() {
            // Nobody needs the guest's memory any more, and the toolstack will destroy the guest when
            // its devices are closed. While pages of it are mapped, Xen walks over all of them again in
            // each piece of that hypercall, and with one vCPU dom0 gets to do nothing else.
            drop(self.memory.invalidate());
            self.unmapper.finish();
        }
    }

    /// Leaves a window that has no device here to another server.
    fn release(&mut self, window: RangeInclusive<u64>) {
        if self.empty.remove(window.start())
            && let Err(error) = self.server.unmap_range(window)
        {
            debug!(domid = self.domid, error = %chain(&error), "the device's registers can't be left to another backend: the guest may have ended");
        }
    }

    /// Answers every trap that waits now. No queue is waited for, but for a reset or a queue's end,
    /// whose answers mean that the device has let go of the guest's memory.
    ///
    /// True if there may be more: a guest that never stops asking must not keep its thread from what
    /// the handshake asks.
    fn answer_requests(&mut self) -> Result<bool, xen_ioreq::Error> {
        for _ in 0..MAX_REQUESTS {
            let Some(request) = self.server.next_request()? else { return Ok(false) };
            match request.kind() {
                RequestKind::Read { addr, size } => {
                    let mut data = [0xff; 8];
                    if let Some((device, offset)) = device_at(&mut self.devices, addr, size) {
                        device.read(offset, &mut data[..usize::from(size)]);
                    }
                    request.complete_read(u64::from_le_bytes(data));
                }
                RequestKind::Write { addr, size, data } => {
                    let data = &data.to_le_bytes()[..usize::from(size)];
                    match device_at(&mut self.devices, addr, size) {
                        Some((device, offset)) => {
                            let kick = device.write(offset, data);
                            // The vCPU goes on before the queue is looked at.
                            request.complete();
                            if let Some(queue) = kick {
                                device.kick(queue);
                            }
                        }
                        None => request.complete(),
                    }
                }
                RequestKind::Invalidate => {
                    let retired = self.memory.invalidate();
                    // The vCPU doesn't wait for unmapping.
                    request.complete();
                    self.unmapper.unmap(retired);
                }
                kind => {
                    if let Some(dropped) = self.limit.allow() {
                        warn!(
                            domid = self.domid,
                            ?kind,
                            dropped,
                            "Xen sent a request of a kind that virtio-mmio does not have; it was answered without effect"
                        );
                    }
                    request.complete();
                }
            }
        }
        Ok(true)
    }
}

/// The device in whose window an access lies, and at what offset.
fn device_at<D>(
    devices: &mut BTreeMap<DeviceId, Placed<D>>,
    addr: u64,
    size: u8,
) -> Option<(&mut D, u64)> {
    let last = addr.checked_add(u64::from(size) - 1)?;
    let placed = devices
        .values_mut()
        .find(|Placed { window, .. }| window.contains(&addr) && window.contains(&last))?;
    Some((&mut placed.device, addr - placed.window.start()))
}
