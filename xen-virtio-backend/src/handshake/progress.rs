//! What has happened to devices and guests since the last look.

use std::{sync::Arc, time::Instant};

use backend_process::chain;
use tracing::{error, info, warn};
use xen_ioreq::DomId;
use xen_store::{Store, StoreExt, XenbusState};

use super::{
    Handshake, Task,
    open::close,
    refusal::AttachError,
    stage::{Device, Read, Stage, TIMEOUT},
};
use crate::{
    backend::{Backend, Refusal},
    guest::{Attachment, Command, End, Event, GuestError},
    host::Host,
    node::DeviceId,
};

/// Said of devices whose guest's thread has ended before the guest.
const ENDED: &str = "what served the guest has ended before it, and its devices are closed: see the log of the \
     backend for the reason, then `xl destroy` and `xl create` the guest";

impl<S: Store, H: Host, B: Backend> Handshake<S, H, B> {
    /// Takes in what the guests' threads have told, and those that open devices.
    pub(super) fn take_events(&mut self) -> Result<(), xen_store::Error> {
        self.unseen.extend(self.events.take(std::time::Duration::ZERO));
        while let Some(event) = self.unseen.pop_front() {
            self.take_event(event)?;
        }
        Ok(())
    }

    /// As [`handle_events`](Self::handle_events), while xenstore can't be reached: guests still end.
    pub fn handle_ends(&mut self) {
        self.release_dead();
        for event in self.events.take(std::time::Duration::ZERO) {
            match event {
                Event::Ended(domid, _) => {
                    self.guests.ended(domid);
                    self.reserving.retain(|id| id.domid != domid);
                    // What comes of that for its devices' nodes is found out when all are listed again.
                    self.devices.retain(|id, device| id.domid != domid || !device.is_the_guests());
                }
                event => self.unseen.push_back(event),
            }
        }
    }

    fn take_event(&mut self, event: Event<B>) -> Result<(), xen_store::Error> {
        match event {
            Event::Opened(id, opened) => self.opened(id, opened),
            Event::Closed(id) => self.closed(id),
            Event::Attached(id, attached) => self.attached(id, attached),
            Event::Detached(id) => match self.devices.get(&id) {
                Some(Device { stage: Stage::Detaching { .. }, .. }) => {
                    self.devices.remove(&id);
                    // What xenstore has refused is not tried before its pause is over.
                    if self.retries.is_scheduled(Task::Device(id)) {
                        Ok(())
                    } else {
                        self.look_at(id)
                    }
                }
                _ => Ok(()),
            },
            Event::Reserved(id, reserved) => {
                self.reserving.remove(&id);
                let Err(error) = reserved else { return Ok(()) };
                warn!(%id, error = %chain(&error), "accesses of the guest to the device's registers are not answered, and its kernel may panic on one: `xl destroy` the guest, and create it again without the device");
                Ok(())
            }
            Event::Notice(id, text) => {
                if matches!(
                    self.devices.get(&id),
                    Some(Device { stage: Stage::Serving { .. }, .. })
                ) {
                    self.errors.write(&self.store, id, &id.path(&self.dir), &text);
                }
                Ok(())
            }
            Event::Ended(domid, end) => self.ended(domid, end),
        }
    }

    /// A device was opened: its guest's thread attaches it, if it is still wanted.
    fn opened(
        &mut self,
        id: DeviceId,
        opened: Result<B::Resources, Refusal>,
    ) -> Result<(), xen_store::Error> {
        let Some(Device { stage: Stage::Opening { read, wanted }, .. }) = self.devices.remove(&id)
        else {
            return Ok(());
        };
        match opened {
            Ok(resources) if wanted => self.attach(id, read, resources),
            Ok(resources) => {
                self.close(id, resources, None);
                Ok(())
            }
            Err(refusal) if wanted => self.refuse(id, &refusal.into()),
            Err(_) => self.look_at(id),
        }
    }

    /// Has its guest's thread attach a device.
    fn attach(
        &mut self,
        id: DeviceId,
        read: Read<B>,
        resources: B::Resources,
    ) -> Result<(), xen_store::Error> {
        let guest = match self.guests.take_on(id.domid) {
            Ok(guest) => guest,
            Err(error) => {
                self.close(id, resources, Some(error.into()));
                return Ok(());
            }
        };
        let (node, config) = read.clone();
        match guest.attach(Box::new(Attachment { node, config, resources })) {
            Ok(()) => drop(self.devices.insert(id, Device::new(Stage::Attaching { read }))),
            Err(attachment) => {
                let ended = GuestError::Ended { domid: id.domid };
                self.close(id, attachment.resources, Some(ended.into()));
            }
        }
        Ok(())
    }

    /// Has closed what was opened for a device, and the device refused then, if there is a reason to: who is told of it
    /// may try again at once.
    fn close(&mut self, id: DeviceId, resources: B::Resources, refusal: Option<AttachError>) {
        self.devices.insert(id, Device::new(Stage::Closing { refusal, logged: false }));
        close(id, resources, self.event_sender.clone());
    }

    /// What was opened for a device and is not attached is closed.
    fn closed(&mut self, id: DeviceId) -> Result<(), xen_store::Error> {
        let Some(Device { stage: Stage::Closing { refusal, .. }, .. }) = self.devices.remove(&id)
        else {
            return Ok(());
        };
        match refusal {
            Some(error) => self.refuse(id, &error),
            None => self.look_at(id),
        }
    }

    /// A device's window answers: the guest may run.
    fn attached(
        &mut self,
        id: DeviceId,
        attached: Result<Arc<B::Figures>, GuestError>,
    ) -> Result<(), xen_store::Error> {
        let Some(Device { stage: Stage::Attaching { read }, .. }) = self.devices.get(&id) else {
            return Ok(());
        };
        let read = read.clone();
        let figures = match attached {
            Ok(figures) => figures,
            Err(error) => {
                self.devices.remove(&id);
                return self.refuse(id, &AttachError::Guest(error));
            }
        };
        self.figures.push(Arc::downgrade(&figures));
        let serving = Stage::Serving { text: B::describe(&read.1) };
        self.devices.insert(id, Device::new(serving));
        match self.announce(id, &read) {
            Ok(true) => {
                info!(%id, "serving");
                self.errors.remove(&self.store, id)?;
                self.settle(Task::Device(id), Ok(true)).map(drop)
            }
            Ok(false) => {
                self.let_go(id, "it is no longer the device that was attached");
                Ok(())
            }
            // It stays open whether it was announced; all is looked at again over the next connection.
            Err(error) if error.is_disconnected() => Err(error),
            Err(error) => {
                // What is served has been announced, so that an `Initialising` device is always a new one.
                self.let_go(id, "its state can't be written");
                self.settle(Task::Device(id), Err(error)).map(drop)
            }
        }
    }

    /// A guest's thread has ended, and let go of its devices.
    fn ended(&mut self, domid: DomId, end: End) -> Result<(), xen_store::Error> {
        let unexpected = self.guests.ended(domid) && end == End::Failed;
        self.reserving.retain(|id| id.domid != domid);
        if unexpected {
            error!(domid, "{ENDED}");
        }
        let is_its = |(id, device): (&DeviceId, &Device<B>)| {
            (id.domid == domid && device.is_the_guests()).then_some(*id)
        };
        for id in self.devices.iter().filter_map(is_its).collect::<Vec<_>>() {
            let stage = self.devices.remove(&id).map(|device| device.stage);
            match stage {
                Some(Stage::Attaching { .. }) if unexpected => {
                    self.refuse(id, &AttachError::Guest(GuestError::Ended { domid }))?;
                }
                Some(Stage::Serving { .. }) if unexpected => {
                    let path = id.path(&self.dir);
                    self.refused.insert(id);
                    self.errors.write(&self.store, id, &path, ENDED);
                    let to = XenbusState::Closed;
                    self.store.change_xenbus_state(&path, XenbusState::InitWait, to)?;
                }
                _ => self.look_at(id)?,
            }
        }
        Ok(())
    }

    /// Has guests that have ended let go of.
    pub fn release_dead(&mut self) {
        for domid in self.guests.release_dead() {
            for (_, device) in self.devices.iter_mut().filter(|(id, _)| id.domid == domid) {
                match &mut device.stage {
                    Stage::Opening { wanted, .. } => *wanted = false,
                    Stage::Closing { refusal, .. } => *refusal = None,
                    // Its thread tells of its end when it has let go of all its devices.
                    _ => *device = Device::new(Stage::Detaching { logged: false }),
                }
            }
        }
        self.forgotten.retain(|domid| self.guests.is_alive(*domid));
    }

    /// Has a device closed. True if it is.
    pub(super) fn let_go(&mut self, id: DeviceId, reason: &str) -> bool {
        let Some(device) = self.devices.get_mut(&id) else { return true };
        match &mut device.stage {
            Stage::Opening { wanted, .. } => *wanted = false,
            Stage::Closing { refusal, .. } => *refusal = None,
            Stage::Detaching { .. } => {}
            Stage::Attaching { .. } | Stage::Serving { .. } => {
                info!(%id, reason, "closing the device");
                if let Some(guest) = self.guests.get(id.domid) {
                    guest.send(Command::Detach(id));
                }
                *device = Device::new(Stage::Detaching { logged: false });
            }
        }
        false
    }

    /// Tells the toolstack, or the operator, of what doesn't happen in time.
    pub(super) fn end_what_takes_too_long(&mut self) -> Result<(), xen_store::Error> {
        let now = Instant::now();
        let late = |(id, device): (&DeviceId, &Device<B>)| {
            device.deadline().is_some_and(|deadline| deadline <= now).then_some(*id)
        };
        let seconds = TIMEOUT.as_secs();
        for id in self.devices.iter().filter_map(late).collect::<Vec<_>>() {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            let text = device.text();
            match &mut device.stage {
                Stage::Opening { wanted, .. } => {
                    *wanted = false;
                    self.refuse(id, &AttachError::Slow { device: text, seconds })?;
                }
                Stage::Attaching { .. } => {
                    self.let_go(id, "its guest's thread doesn't answer");
                    let stuck = GuestError::Stuck { domid: id.domid, seconds };
                    self.refuse(id, &AttachError::Guest(stuck))?;
                }
                Stage::Closing { logged, .. } | Stage::Detaching { logged } => {
                    *logged = true;
                    warn!(%id, "the device is not closed yet, as what it stands on does not answer: check the storage of its image");
                }
                Stage::Serving { .. } => {}
            }
        }
        Ok(())
    }
}
