//! What a guest's thread does: it answers traps, and attaches and detaches devices.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    time::Duration,
};

use backend_process::chain;
use tracing::{error, info, warn};
use virtio_dev::PendingWrite;
use virtio_worker::LogLimit;
use xen_ioreq::{DeferredRequest, DomId, IoreqServer, ServerId};
use xen_virtio_sandbox::ThreadFilters;

use super::{
    bus::Bus,
    command::{Command, Input},
    error::GuestError,
    memory::GuestMemory,
    message::{End, Message},
    options::GuestOptions,
    placed::Placed,
    reports::Reports,
    sleep::sleep,
    unmapper::Unmapper,
    wake::{GuestWake, GuestWaker},
};
use crate::{
    backend::{Backend, Device},
    host::{Handles, Host},
    node::DeviceId,
    transport_kind::TransportKind,
};

mod commands;
mod on_bus;
mod requests;

/// Failures in a row after which a guest's event channels are given up.
const MAX_FAILURES: u32 = 16;

/// How often it is looked whether a device or a queue has stopped: at first, and at most.
const STOP_INTERVALS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// How often it is looked whether the guest lives, while there is no supervisor to tell of its end.
const LIVENESS: Duration = Duration::from_secs(1);

type PlacedOf<H, B> = Placed<<B as Backend>::Device<H>, <B as Backend>::Config>;

/// What the guest's thread owns.
pub(crate) struct Service<H: Host, B: Backend> {
    domid: DomId,
    // Before the server: a device's queues end before its server does.
    devices: BTreeMap<DeviceId, PlacedOf<H, B>>,
    /// Devices whose storage is looked at by a thread, and whether they are still wanted.
    loading: BTreeMap<DeviceId, bool>,
    /// Devices that are let go of and have not stopped yet.
    stopping: BTreeMap<DeviceId, PlacedOf<H, B>>,
    /// Writes that wait for a device's queues to stop.
    pending: Vec<(DeviceId, PendingWrite, DeferredRequest)>,
    stop_interval: Duration,
    server: IoreqServer<H::Model, H::Memory, H::Events>,
    /// Where windows without a device behind them begin: reads give all ones, which no driver takes for a
    /// virtio device. Unanswered, an access would be an external abort in the guest.
    empty: BTreeSet<u64>,
    /// The guest's PCI bus, if it may have one.
    bus: Option<Bus<H::Model>>,
    memory: GuestMemory<H>,
    unmapper: Unmapper,
    handles: Handles<H>,
    shared: Arc<B::Shared>,
    /// For those threads.
    inputs: Sender<Input<B>>,
    waker: GuestWaker,
    filters: ThreadFilters,
    reports: Reports<B>,
    /// A supervisor is there.
    is_supervised: bool,
    limit: LogLimit,
}

impl<H: Host, B: Backend> Service<H, B> {
    /// Takes over an IOREQ server of the guest's, of which nothing is asked before its first window. If it is that of a
    /// process that was killed, it has windows, and which they are is not known: none of them is without an answer.
    pub(crate) fn new(
        domid: DomId,
        handles: Handles<H>,
        server: ServerId,
        options: GuestOptions,
        shared: B::Shared,
        (inputs, waker): (Sender<Input<B>>, GuestWaker),
        reports: Reports<B>,
    ) -> Result<Self, GuestError> {
        let model = Arc::clone(&handles.model);
        let (memory, events) = (Arc::clone(&handles.memory), Arc::clone(&handles.events));
        let mut server = IoreqServer::take_over(model, memory, events, server)?;
        if let Some(bell) = &handles.bell {
            server.set_bell(Arc::clone(bell));
        }
        // The server's page is mapped.
        let budget = options.map_budget.bytes();
        info!(domid, budget_mib = budget >> 20, "the guest's memory is mapped up to this limit");
        let bus = match options.transport {
            TransportKind::Mmio => None,
            TransportKind::Pci => Some(Bus::new(domid, Arc::clone(&handles.model))),
        };
        Ok(Self {
            domid,
            server,
            memory: GuestMemory::new(&handles, budget),
            unmapper: Unmapper::new(domid),
            handles,
            shared: Arc::new(shared),
            inputs,
            waker,
            filters: ThreadFilters::NONE,
            reports,
            is_supervised: true,
            devices: BTreeMap::new(),
            loading: BTreeMap::new(),
            stopping: BTreeMap::new(),
            pending: Vec::new(),
            stop_interval: STOP_INTERVALS.0,
            empty: BTreeSet::new(),
            bus,
            limit: LogLimit::new(),
        })
    }

    /// Confines the threads that its devices start.
    pub(crate) fn confine(&mut self, filters: ThreadFilters) {
        self.filters = filters;
    }

    /// Whether the guest is known to be gone or being destroyed.
    fn is_destroyed(&self) -> bool {
        matches!(self.server.liveness().is_alive(), Ok(false))
    }

    /// Answers the guest and `inbox`, for which `wake` wakes it, until it is told to stop.
    pub(crate) fn run(mut self, inbox: &Receiver<Input<B>>, wake: GuestWake) -> End {
        // If this one fails or panics, the supervisor has another process take it over, or the next one does.
        self.server.leave_on_drop(true);
        let end = self.serve(inbox, wake);
        self.devices
            .iter()
            .chain(&self.stopping)
            .for_each(|(id, placed)| self.tell_last(*id, placed));
        if !matches!(end, End::Failed(_)) {
            self.server.leave_on_drop(false);
        }
        end
    }

    fn serve(&mut self, inbox: &Receiver<Input<B>>, mut wake: GuestWake) -> End {
        let mut failures = 0;
        loop {
            let more = match self.answer_requests() {
                Ok(more) => {
                    failures = 0;
                    more
                }
                Err(error) => {
                    failures += 1;
                    let destroyed = self.is_destroyed();
                    if failures == MAX_FAILURES || destroyed {
                        // The guest is gone, or its event channels are: nothing more can be answered.
                        warn!(domid = self.domid, error = %chain(&error), "the guest is no longer served, as it has ended or its event channels failed: if it still runs, `xl destroy` and `xl create` it");
                        return match destroyed {
                            true => End::GuestDestroyed,
                            false => End::Failed(chain(&error).to_string()),
                        };
                    }
                    warn!(domid = self.domid, error = %chain(&error), "an access of the guest to a device's registers may be unanswered: if one of its vCPUs hangs, `xl destroy` and `xl create` it");
                    false
                }
            };
            let more = self.process() || more;
            let waits = !self.stopping.is_empty() || !self.pending.is_empty();
            let look = waits.then_some(self.stop_interval);
            let look = look.or((!self.is_supervised).then_some(LIVENESS));
            let timeout = if more { Some(Duration::ZERO) } else { look };
            let devices = self.devices.values().map(|placed| &placed.device);
            let ready = match sleep(&mut wake, &mut self.server, devices, timeout) {
                Ok(ready) => ready,
                Err(error) => {
                    error!(domid = self.domid, error = %chain(&error), "poll failed, and the guest is no longer served: `xl destroy` and `xl create` it");
                    return End::Failed(format!("can't wait for the guest: {}", chain(&error)));
                }
            };
            for id in ready {
                if let Some(placed) = self.devices.get_mut(&id) {
                    placed.device.ready();
                }
            }
            if waits {
                self.stop_interval = (self.stop_interval * 2).min(STOP_INTERVALS.1);
                self.take_stopped();
                self.answer_pending();
            }
            if !self.is_supervised && self.is_destroyed() {
                info!(domid = self.domid, "the guest has ended");
                self.begin_stop();
                return End::GuestDestroyed;
            }
            for input in inbox.try_iter() {
                match input {
                    Input::Command(Command::Stop, _) => {
                        self.begin_stop();
                        return End::Stopped;
                    }
                    Input::Command(command, files) => self.carry_out(command, files),
                    Input::Loaded(loaded) => self.loaded(*loaded),
                    Input::Connected(supervisor) => {
                        self.is_supervised = true;
                        // Who wanted them is gone.
                        self.loading.values_mut().for_each(|wanted| *wanted = false);
                        self.reports.greet(supervisor, Message::Hello(self.hello()));
                    }
                    Input::Disconnected => self.is_supervised = false,
                }
            }
        }
    }

    /// A device ends: what it has done in all.
    fn tell_last(&self, id: DeviceId, placed: &PlacedOf<H, B>) {
        self.reports.send(Message::Figures(id, placed.device.figures()));
    }

    /// All devices begin to stop at once; each is waited for when it is dropped.
    fn begin_stop(&mut self) {
        self.devices.values_mut().for_each(|placed| placed.device.begin_stop());
    }

    /// Has the devices serve what they serve on this thread. True if there is more.
    fn process(&mut self) -> bool {
        let mut more = false;
        for placed in self.devices.values_mut() {
            more |= placed.device.process();
        }
        more
    }

    /// Answers the writes whose queues have stopped; of a device that is let go of, when all of it has.
    fn answer_pending(&mut self) {
        let (devices, stopping) = (&mut self.devices, &self.stopping);
        self.pending.retain(|(id, write, _)| match devices.get_mut(id) {
            Some(placed) => placed.device.is_pending(*write),
            None => stopping.contains_key(id),
        });
    }

    /// Closes the devices that have stopped.
    fn take_stopped(&mut self) {
        let stopped: Vec<_> = self
            .stopping
            .iter()
            .filter(|(_, placed)| placed.device.is_stopped())
            .map(|(id, _)| *id)
            .collect();
        for id in &stopped {
            let Some(placed) = self.stopping.remove(id) else { continue };
            self.tell_last(*id, &placed);
            // It waits for nothing to drop it.
            drop(placed);
        }
        if !stopped.is_empty() && self.devices.is_empty() && self.stopping.is_empty() {
            // Nobody needs the guest's memory any more, and the toolstack will destroy the guest when
            // its devices are closed. While pages of it are mapped, Xen walks over all of them again in
            // each piece of that hypercall, and with one vCPU dom0 gets to do nothing else.
            drop(self.memory.invalidate());
            self.unmapper.finish();
        }
        stopped.into_iter().for_each(|id| self.reports.send(Message::Detached(id)));
    }
}
