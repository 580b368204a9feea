//! What a guest's thread does: it answers traps, and attaches and detaches disks.

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

use crate::{
    device_id::DeviceId,
    disk::{Disk, DiskSpec},
    figures::Figures,
    guest::{Command, GuestError},
    guest_memory::GuestMemory,
    map_budget::MapBudget,
    notices::Notices,
    platform::{Handles, Platform},
    storage::Storage,
    unmapper::Unmapper,
};

/// Failures in a row after which a guest's event channels are given up.
const MAX_FAILURES: u32 = 16;

/// How many requests are answered before the thread looks at what else there is to do.
const MAX_REQUESTS: u32 = 256;

/// What the guest's thread owns.
pub(crate) struct Service<P: Platform> {
    domid: DomId,
    // Before the server: a disk's workers end before its server does.
    disks: BTreeMap<DeviceId, Disk<P>>,
    server: IoreqServer<P::Model, P::Memory, P::Events>,
    /// Where windows without a device behind them begin: reads give all ones, which no driver takes for a
    /// virtio device. Unanswered, an access would be an external abort in the guest.
    empty: BTreeSet<u64>,
    memory: GuestMemory<P>,
    unmapper: Unmapper,
    handles: Handles<P>,
    notices: Notices,
    limit: LogLimit,
}

impl<P: Platform> Service<P> {
    /// Creates the guest's IOREQ server. Nothing is asked of it before its first window.
    pub(crate) fn new(
        domid: DomId,
        handles: Handles<P>,
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
            disks: BTreeMap::new(),
            empty: BTreeSet::new(),
            limit: LogLimit::new(),
        })
    }

    /// What tells whether the guest still lives.
    pub(crate) fn liveness(&self) -> Liveness<P::Model> {
        self.server.liveness()
    }

    /// Answers the guest and `inbox`, for which `wake` wakes it, until it is told to stop.
    pub(crate) fn run(mut self, inbox: &Receiver<Command>, mut wake: Wake) {
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
                    warn!(domid = self.domid, error = %chain(&error), "an access of the guest to a disk's registers may be unanswered: if one of its vCPUs hangs, `xl destroy` and `xl create` it");
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
                    Command::Attach(disk, reply) => {
                        let (spec, storage) = *disk;
                        let _ = reply.send(self.attach(spec, storage));
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
                    Command::Report => self.disks.values().for_each(Disk::report),
                    Command::RefreshCapacities => {
                        self.disks.values_mut().for_each(Disk::refresh_capacity);
                    }
                    Command::Stop => return,
                }
            }
        }
    }

    fn attach(&mut self, spec: DiskSpec, storage: Storage) -> Result<Arc<Figures>, GuestError> {
        let memory = self.memory.for_disk(spec.nodes.grants);
        let id = spec.id;
        let disk =
            Disk::new(spec, storage, memory, Arc::clone(&self.handles.model), self.notices.clone())
                .map_err(|message| GuestError::Disk { id, message })?;
        self.claim(disk.window())?;
        self.empty.remove(disk.window().start());
        let figures = disk.figures();
        self.disks.insert(id, disk);
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
        let Some(disk) = self.disks.remove(&id) else { return };
        self.empty.insert(*disk.window().start());
        drop(disk);
        if self.disks.is_empty() {
            // Nobody needs the guest's memory any more, and the toolstack will destroy the guest when
            // its disks are closed. While pages of it are mapped, Xen walks over all of them again in
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

    /// Answers every trap that waits now. No disk is waited for, but for a reset or a queue's end,
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
                    if let Some(disk) = disk_at(&mut self.disks, addr, size) {
                        disk.read(addr, &mut data[..usize::from(size)]);
                    }
                    request.complete_read(u64::from_le_bytes(data));
                }
                RequestKind::Write { addr, size, data } => {
                    let data = &data.to_le_bytes()[..usize::from(size)];
                    match disk_at(&mut self.disks, addr, size) {
                        Some(disk) => {
                            let kick = disk.write(addr, data);
                            // The vCPU goes on before the disk is looked at.
                            request.complete();
                            if let Some(queue) = kick {
                                disk.kick(queue);
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

fn disk_at<P: Platform>(
    disks: &mut BTreeMap<DeviceId, Disk<P>>,
    addr: u64,
    size: u8,
) -> Option<&mut Disk<P>> {
    let last = addr.checked_add(u64::from(size) - 1)?;
    disks.values_mut().find(|disk| {
        let window = disk.window();
        window.contains(&addr) && window.contains(&last)
    })
}
