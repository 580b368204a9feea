//! What has happened to devices and guests since the last look.

use std::time::Instant;

use tracing::{error, info, warn};
use xen_store::{Store, StoreExt, XenbusState};

use super::{
    Handshake, Task,
    event::Event,
    open,
    refusal::{AttachError, ended},
    stage::{Device, Read, Refused, Stage, TIMEOUT},
    told::shortened,
};
use crate::{
    backend::{Backend, Opened},
    close,
    guest::{Command, End},
    launch::Launch,
    node::DeviceId,
    process::GuestKey,
    refusal::Refusal,
};

impl<S: Store, L: Launch, B: Backend> Handshake<S, L, B> {
    /// Takes in what the guests' processes have told, and those that open devices.
    pub(super) fn take_events(&mut self) -> Result<(), xen_store::Error> {
        self.unseen.extend(self.events.take());
        while let Some(event) = self.unseen.pop_front() {
            self.take_event(event)?;
        }
        Ok(())
    }

    /// As [`handle_events`](Self::handle_events), while xenstore can't be reached: guests still end.
    pub fn handle_ends(&mut self) {
        self.release_dead();
        for event in self.events.take() {
            match event {
                Event::Ended(key, end) => {
                    self.guests.ended(key, end, &self.backend);
                    self.reserving.retain(|id| id.domid != key.domid);
                    // What comes of that for its devices' nodes is found out when all are listed again.
                    self.devices.retain(|id, device| !device.is_of(key, *id));
                }
                event => self.unseen.push_back(event),
            }
        }
    }

    fn take_event(&mut self, event: Event<B>) -> Result<(), xen_store::Error> {
        match event {
            Event::Opened(id, opened) => self.opened(id, opened),
            Event::Closed(id) => self.closed(id),
            Event::Told(key, message) => self.told(key, *message),
            Event::OtherVersion(key, version) => {
                self.guests.is_of_other_version(key);
                warn!(domid = key.domid, sharing = %key.sharing, version, "the guest's process is of another version than this program: it serves its devices to the end of the guest, and they can't be changed meanwhile");
                Ok(())
            }
            Event::Ended(key, end) => self.ended(key, end),
        }
    }

    /// A device was opened: its guest's process attaches it, if it is still wanted.
    fn opened(
        &mut self,
        id: DeviceId,
        opened: Result<Opened<B::Resources>, Refusal>,
    ) -> Result<(), xen_store::Error> {
        let Some(Device { stage: Stage::Opening { read, wanted }, .. }) = self.devices.remove(&id)
        else {
            return Ok(());
        };
        match opened {
            Ok(opened) if wanted => self.attach(id, read, opened),
            Ok(opened) => {
                self.close(id, opened, None);
                Ok(())
            }
            Err(refusal) if wanted => self.refuse(id, &refusal.into()),
            Err(_) => self.look_at(id),
        }
    }

    /// Has its guest's process attach a device.
    fn attach(
        &mut self,
        id: DeviceId,
        read: Read<B>,
        opened: Opened<B::Resources>,
    ) -> Result<(), xen_store::Error> {
        let (node, config) = read.clone();
        let key = GuestKey { domid: id.domid, sharing: node.sharing };
        // Of the same window, as of an earlier device in this one's place.
        for (_, other) in self.guests.of(id.domid).filter(|(other, _)| *other != key) {
            other.send(&Command::Release(node.window()));
        }
        let (transport, places) = (self.transport_of(id.domid), self.tell_places(id.domid));
        let process = match self.guests.take_on(key, transport, &self.backend) {
            Ok(process) => process,
            Err(error) => {
                self.close(id, opened, Some(error));
                return Ok(());
            }
        };
        process.send(&places);
        match process.attach(node, config, opened, self.event_sender.clone()) {
            Ok(()) => {
                let attaching = Stage::Attaching { read, attached: None };
                self.devices.insert(id, Device::opened(attaching));
            }
            // The process has ended, which is told soon. Then it is seen whether the guest still lives.
            Err(left) => {
                let closing = Stage::Closing { refusal: None, logged: false };
                self.devices.insert(id, Device::opened(closing));
                close::close(left);
            }
        }
        Ok(())
    }

    /// Has closed what was opened for a device, and the device refused then, if there is a reason to: who is told of it
    /// may try again at once.
    fn close(&mut self, id: DeviceId, left: impl Send + 'static, refusal: Option<AttachError>) {
        self.devices.insert(id, Device::opened(Stage::Closing { refusal, logged: false }));
        open::close(id, left, self.event_sender.clone());
    }

    /// What was opened for a device is closed here.
    fn closed(&mut self, id: DeviceId) -> Result<(), xen_store::Error> {
        let Some(device) = self.devices.get_mut(&id) else { return Ok(()) };
        device.is_open = false;
        match &mut device.stage {
            Stage::Closing { refusal, .. } => {
                let refusal = refusal.take();
                self.devices.remove(&id);
                match refusal {
                    Some(error) => self.refuse(id, &error),
                    None => self.look_at(id),
                }
            }
            _ => self.attached(id),
        }
    }

    /// The process of the guest has let go of a device.
    pub(super) fn detached(&mut self, id: DeviceId) -> Result<(), xen_store::Error> {
        match self.devices.get_mut(&id) {
            Some(Device { stage: Stage::Detaching { .. }, is_open: false, .. }) => {
                self.devices.remove(&id);
                // What xenstore has refused is not tried before its pause is over.
                if self.retries.is_scheduled(Task::Device(id)) { Ok(()) } else { self.look_at(id) }
            }
            Some(device @ Device { stage: Stage::Detaching { .. }, .. }) => {
                device.enter(Stage::Closing { refusal: None, logged: false });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Goes on with a device if it is attached, or can't be, and what was opened for it is closed here: its window
    /// answers, and the guest may run.
    pub(super) fn attached(&mut self, id: DeviceId) -> Result<(), xen_store::Error> {
        let Some(Device { stage: Stage::Attaching { read, attached }, is_open: false, .. }) =
            self.devices.get_mut(&id)
        else {
            return Ok(());
        };
        let Some(outcome) = attached.take() else { return Ok(()) };
        let read = read.clone();
        if let Err(error) = outcome {
            self.devices.remove(&id);
            return self.refuse(id, &AttachError::NotAttached(error));
        }
        self.begin_figures(id, &read.1);
        let serving = Stage::Serving { read: read.clone(), taken_over: false };
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

    /// The process of a guest has ended, and let go of its devices.
    fn ended(&mut self, key: GuestKey, end: End) -> Result<(), xen_store::Error> {
        let domid = key.domid;
        // What it could not know of is found again.
        self.is_to_list |= self.guests.is_unknown(domid);
        let reason = self.guests.ended(key, end, &self.backend).map(shortened);
        self.reserving.retain(|id| id.domid != domid);
        // Who waits for an answer hears that there is none.
        self.orders.retain(|_, (asked, _)| *asked != key);
        if let Some(reason) = &reason {
            error!(domid, sharing = %key.sharing, "{}", ended(reason));
        }
        let is_its = |(id, device): (&DeviceId, &Device<B>)| device.is_of(key, *id).then_some(*id);
        for id in self.devices.iter().filter_map(is_its).collect::<Vec<_>>() {
            let Some(mut device) = self.devices.remove(&id) else { continue };
            let refusal = match (&device.stage, &reason) {
                (Stage::Attaching { .. }, Some(reason)) => {
                    Some(AttachError::Ended { domid, reason: reason.clone() })
                }
                _ => None,
            };
            match (&device.stage, refusal, &reason) {
                (_, refusal, _) if device.is_open => {
                    device.enter(Stage::Closing { refusal, logged: false });
                    self.devices.insert(id, device);
                }
                (_, Some(error), _) => self.refuse(id, &error)?,
                (Stage::Serving { read, .. }, None, Some(reason)) => {
                    self.lost(id, Some(read.clone()), reason)?
                }
                _ => self.look_at(id)?,
            }
        }
        Ok(())
    }

    /// What served a device has ended before its guest.
    pub(super) fn lost(
        &mut self,
        id: DeviceId,
        read: Option<Read<B>>,
        reason: &str,
    ) -> Result<(), xen_store::Error> {
        let path = id.path(&self.dir);
        self.refused.insert(id, Refused { reason: ended(reason), read });
        self.errors.write(&self.store, id, &path, &ended(reason));
        // The guest's other devices may serve on.
        self.reserve_or_warn(id, &path);
        if let Some(state) = self.store.xenbus_state(None, &path)? {
            self.store.change_xenbus_state(&path, state, XenbusState::Closed)?;
        }
        Ok(())
    }

    /// Has guests that have ended let go of.
    pub fn release_dead(&mut self) {
        for key in self.guests.release_dead() {
            for (id, device) in self.devices.iter_mut().filter(|(id, _)| id.domid == key.domid) {
                let is_its = device.is_of(key, *id);
                match &mut device.stage {
                    Stage::Opening { wanted, .. } => *wanted = false,
                    Stage::Closing { refusal, .. } => *refusal = None,
                    // Its process tells of its end when it has let go of all its devices.
                    _ if is_its => {
                        let sharing = key.sharing;
                        device.enter(Stage::Detaching { sharing, logged: false });
                    }
                    _ => {}
                }
            }
        }
        self.look_at_forgotten();
    }

    /// Has a device closed. True if it is.
    pub(super) fn let_go(&mut self, id: DeviceId, reason: &str) -> bool {
        let Some(device) = self.devices.get_mut(&id) else { return true };
        match &mut device.stage {
            Stage::Opening { wanted, .. } => *wanted = false,
            Stage::Closing { refusal, .. } => *refusal = None,
            Stage::Detaching { .. } => {}
            Stage::Attaching { read: (node, _), .. } | Stage::Serving { read: (node, _), .. } => {
                info!(%id, reason, "closing the device");
                let sharing = node.sharing;
                self.guests.send(GuestKey { domid: id.domid, sharing }, &Command::Detach(id));
                device.enter(Stage::Detaching { sharing, logged: false });
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
                    self.let_go(id, "its guest's process doesn't answer");
                    self.refuse(id, &AttachError::Stuck { domid: id.domid, seconds })?;
                }
                Stage::Closing { logged, .. } | Stage::Detaching { logged, .. } => {
                    *logged = true;
                    warn!(%id, "the device is not closed yet, as what it stands on does not answer: check the storage of its image");
                }
                Stage::Serving { .. } => {}
            }
        }
        Ok(())
    }
}
