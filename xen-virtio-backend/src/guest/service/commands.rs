//! What the supervisor asks of a guest's thread.

use std::{
    ops::RangeInclusive,
    os::fd::OwnedFd,
    sync::{Arc, mpsc::Sender},
    thread,
};

use backend_process::{Logging, chain, limits};
use rustix::io::Errno;
use tracing::debug;

use super::{PlacedOf, STOP_INTERVALS, Service};
use crate::{
    backend::{Backend, Device, Opened, Parts},
    close::close,
    guest::{
        Command, CommandOf, GuestError, GuestWaker, Hello, Input, Loaded, Message, claim::claim,
        placed::Placed,
    },
    host::{Host, InterruptLine},
    node::{DeviceId, DeviceNode},
    refusal::Refusal,
    transport::TransportBuilder,
};

impl<H: Host, B: Backend> Service<H, B> {
    /// Does what the supervisor asks.
    pub(super) fn carry_out(&mut self, command: CommandOf<B>, sent: Vec<OwnedFd>) {
        match command {
            Command::Attach { node, config, resources, files } => {
                let id = node.id;
                debug!(%id, files, base = format_args!("{:#x}", node.base), irq = node.irq, "a device is to be attached");
                let opened = Opened { resources, files: sent };
                // The kernel leaves out files that the process can't have.
                let loading = match opened.files.len() == files {
                    true => self.load(node, config, opened),
                    false => {
                        Err(GuestError::Files { id, source: limits::explain(Errno::MFILE.into()) })
                    }
                };
                if let Err(error) = loading {
                    self.reports.send(Message::Attached(id, Err(error.text())));
                }
            }
            Command::Reserve(id, window) => {
                let base = *window.start();
                let claimed = self.claim(window).and_then(|()| self.claim_bus(Some(base)));
                if claimed.is_ok() {
                    self.empty.insert(base);
                }
                self.reports.send(Message::Reserved(id, claimed.map_err(|error| error.text())));
            }
            Command::Release(window) => self.release(window),
            Command::Places(places) => self.set_places(places),
            Command::Detach(id) => self.detach(id),
            Command::Report => self.devices.values().for_each(|placed| placed.device.report()),
            Command::Figures => {
                for (id, placed) in &self.devices {
                    self.reports.send(Message::Figures(*id, placed.device.figures()));
                }
                self.reports.send(Message::AllFigures);
            }
            Command::Refresh => {
                self.devices.values_mut().for_each(|placed| placed.device.refresh());
            }
            Command::Order(number, id, order) => {
                let answer = match self.devices.get_mut(&id) {
                    Some(placed) => placed.device.order(order),
                    None => Err(format!("{id} is not served any more")),
                };
                self.reports.send(Message::Answered(number, answer));
            }
            Command::LogFilter(filter) => {
                if let Err(error) = Logging::set_filter(&filter) {
                    debug!(error = %chain(&error), "the log's filter can't be changed");
                }
            }
            // Comes with the end of the loop.
            Command::Stop => {}
        }
    }

    pub(super) fn hello(&self) -> Hello<B::Config> {
        let device = |placed: &PlacedOf<H, B>| (placed.node, placed.config.clone());
        Hello {
            devices: self.devices.values().map(device).collect(),
            stopping: self.stopping.keys().chain(self.loading.keys()).copied().collect(),
        }
    }

    /// Has a thread make what a device stands on.
    fn load(
        &mut self,
        node: DeviceNode,
        config: B::Config,
        opened: Opened<B::Resources>,
    ) -> Result<(), GuestError> {
        let id = node.id;
        let (shared, inputs) = (Arc::clone(&self.shared), self.inputs.clone());
        let mut teller = Teller::<B> { inputs, waker: self.waker.clone(), it: None };
        let body = move || {
            let panicked = "the thread that opens the device panicked: report this as a bug";
            let loaded = Err(Refusal::new(panicked));
            let it = teller.it.insert(Box::new(Loaded { node, config, loaded }));
            it.loaded = B::load(&shared, &it.config, opened);
        };
        let started = thread::Builder::new().name("load".into()).spawn(body);
        started.map_err(|source| GuestError::Thread { id, source })?;
        self.loading.insert(id, true);
        Ok(())
    }

    /// What a device stands on is made, or can't be.
    pub(super) fn loaded(&mut self, it: Loaded<B>) {
        let Loaded { node, config, loaded } = it;
        let id = node.id;
        if self.loading.remove(&id) != Some(true) {
            let reports = self.reports.clone();
            close(Unwanted(Some(loaded), move || reports.send(Message::Detached(id))));
            return;
        }
        let attached = loaded
            .map_err(|source| GuestError::Device { id, source })
            .and_then(|loaded| self.attach(node, config, loaded));
        self.reports.send(Message::Attached(id, attached.map_err(|error| error.text())));
    }

    fn attach(
        &mut self,
        node: DeviceNode,
        config: B::Config,
        loaded: B::Loaded,
    ) -> Result<(), GuestError> {
        let parts = Parts {
            memory: self.memory.for_device(node.sharing),
            transport: TransportBuilder::new(
                &node,
                InterruptLine::new(Arc::clone(&self.handles.model), node.irq),
                self.bus.as_ref().and_then(|bus| bus.lines_for(&node)),
                self.reports.notices(),
            ),
            notices: self.reports.notices(),
            filters: self.filters.clone(),
        };
        let device = B::build(&node, config.clone(), loaded, parts)
            .map_err(|source| GuestError::Device { id: node.id, source })?;
        self.claim(node.window())?;
        self.claim_bus(Some(node.base))?;
        self.empty.remove(&node.base);
        self.devices.insert(node.id, Placed::new(node, config, device));
        Ok(())
    }

    /// Has the guest's accesses to a window sent here, unless they are already and nobody has use for them.
    fn claim(&mut self, window: RangeInclusive<u64>) -> Result<(), GuestError> {
        let base = *window.start();
        if !self.empty.contains(&base) {
            if self.has_device_at(base) {
                self.server.map_range(window)?;
            } else {
                claim(&mut self.server, window)?;
            }
        }
        Ok(self.server.enable()?)
    }

    fn has_device_at(&self, base: u64) -> bool {
        self.devices.values().any(|placed| placed.node.base == base)
    }

    /// The window stays claimed: the guest may live on, and its driver may look there.
    fn detach(&mut self, id: DeviceId) {
        if let Some(wanted) = self.loading.get_mut(&id) {
            *wanted = false;
            return;
        }
        let Some(mut placed) = self.devices.remove(&id) else {
            if !self.stopping.contains_key(&id) {
                self.reports.send(Message::Detached(id));
            }
            return;
        };
        self.empty.insert(placed.node.base);
        placed.device.begin_stop();
        self.stopping.insert(id, placed);
        self.stop_interval = STOP_INTERVALS.0;
        self.take_stopped();
    }

    /// Leaves a window that has no device here to another server.
    fn release(&mut self, window: RangeInclusive<u64>) {
        let base = *window.start();
        self.empty.remove(&base);
        if !self.has_device_at(base)
            && let Err(error) = self.server.unmap_range(window)
        {
            debug!(domid = self.domid, error = %chain(&error), "the device's registers can't be left to another process: they may not be this one's");
        }
        self.reclaim_bus();
    }
}

/// Tells of what a thread has made, or that it has panicked.
struct Teller<B: Backend> {
    inputs: Sender<Input<B>>,
    waker: GuestWaker,
    it: Option<Box<Loaded<B>>>,
}

impl<B: Backend> Drop for Teller<B> {
    fn drop(&mut self) {
        if let Some(it) = self.it.take()
            && self.inputs.send(Input::Loaded(it)).is_ok()
        {
            self.waker.wake();
        }
    }
}

/// What is no longer wanted, and what is to be done when it is closed.
struct Unwanted<T, F: FnMut()>(Option<T>, F);

impl<T, F: FnMut()> Drop for Unwanted<T, F> {
    fn drop(&mut self) {
        drop(self.0.take());
        self.1();
    }
}
