//! One device: brought in line with what xenstore says of it.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use backend_process::chain;
use tracing::warn;
use xen_store::{Store, StoreExt, XenbusState};

use super::{
    Handshake, log_unless_disconnected,
    open::open,
    refusal::AttachError,
    stage::{Device, Read, Refused, Stage},
};
use crate::{
    backend::Backend,
    guest::Command,
    launch::Launch,
    node::{
        self, DeviceId, DeviceNode, DeviceType, Kind, NodeError, NodeReader, listing::read_node,
        read_window,
    },
    process::GuestKey,
    refusal::Refusal,
};

/// Within this time a guest ends whose nodes were removed as it is destroyed.
const DESTROYED: Duration = Duration::from_secs(2);

impl<S: Store, L: Launch, B: Backend> Handshake<S, L, B> {
    /// Brings what is served in line with what xenstore says of one device, or begins to: what comes of that is an
    /// event, after which it is looked at again. Whether it is done.
    pub(super) fn reconcile(&mut self, id: DeviceId) -> Result<bool, xen_store::Error> {
        if self.guests.is_unknown(id.domid) {
            // It may be served already. All is looked at again when that is known.
            return Ok(false);
        }
        self.look_at_place(id);
        let path = id.path(&self.dir);
        let Some(state) = self.store.xenbus_state(None, &path)? else {
            return self.without_state(id, &path);
        };
        if self.is_announced_now(id, state)? {
            return Ok(true);
        }
        match self.device_type(id, &path)? {
            Some(device_type) if !device_type.is_some_and(|its| self.backend.claims(its)) => {
                self.leave(id, &path);
                return Ok(true);
            }
            // Whose it is will be known when its type is written.
            None if state == XenbusState::Initialising => return Ok(true),
            _ => {}
        }
        let online = read_node(&self.store, &format!("{path}/online"))?;
        if state == XenbusState::Closing || online.as_deref() == Some("0") {
            let closed = self.let_go(id, "the toolstack closed it");
            if closed && state != XenbusState::Closed {
                self.store.change_xenbus_state(&path, state, XenbusState::Closed)?;
            }
            return Ok(closed);
        }
        if state == XenbusState::Initialising {
            // Of a refused disk, `state` was removed; of another device, `error` was written. A device that is
            // neither is new, even if its place is not: the toolstack may have removed one and written
            // another before this was looked at.
            if id.kind == Kind::Virtio
                && self.refused.contains_key(&id)
                && self.store.exists(None, &format!("{path}/error"))?
            {
                return Ok(true);
            }
            if let Some(device) = self.devices.get(&id)
                && device.is_waiting()
            {
                // Of one that is being let go of, the end is waited for; of one that is being attached, its nodes are
                // compared then.
                return Ok(false);
            }
            self.refused.remove(&id);
            if !self.let_go(id, "another device was written in its place") {
                return Ok(false);
            }
            return self.open_or_refuse(id, &path);
        }
        if self.devices.contains_key(&id) || self.refused.contains_key(&id) {
            return Ok(true);
        }
        if state != XenbusState::Closed
            && let Some(reason) = self.why_lost(id, &path)
        {
            let read = self.read(&NodeReader::new(&self.store, None, id, &path)).ok();
            return self.lost(id, read, &reason).map(|()| true);
        }
        let reason = format!(
            "its state in xenstore, {state}, is that of a device an earlier backend has served"
        );
        self.refused.insert(id, Refused { reason, read: None });
        warn!(%id, %state, "the device is not served: its state in xenstore is that of a device an earlier backend has served; `xl destroy` and `xl create` the guest to have it served again");
        Ok(true)
    }

    /// Why the process that has served the device has ended, if it has.
    fn why_lost(&self, id: DeviceId, path: &str) -> Option<String> {
        let node = DeviceNode::read(&NodeReader::new(&self.store, None, id, path)).ok()?;
        let key = GuestKey { domid: id.domid, sharing: node.sharing };
        self.guests.lost(key).map(str::to_owned)
    }

    /// Announces a device that was taken over and that the supervisor before has not come to announce.
    fn is_announced_now(
        &mut self,
        id: DeviceId,
        state: XenbusState,
    ) -> Result<bool, xen_store::Error> {
        let Some(Device { stage: Stage::Serving { read, taken_over }, .. }) =
            self.devices.get_mut(&id)
        else {
            return Ok(false);
        };
        if !mem::replace(taken_over, false) || state != XenbusState::Initialising {
            return Ok(false);
        }
        let read = read.clone();
        self.announce(id, &read)
    }

    /// A device's type: `None` as long as there is none, and `Some(None)` if it is no type of virtio's.
    fn device_type(
        &self,
        id: DeviceId,
        path: &str,
    ) -> Result<Option<Option<DeviceType>>, xen_store::Error> {
        Ok(match id.kind {
            Kind::VirtioDisk => Some(Some(DeviceType::BLOCK)),
            Kind::Virtio => {
                let text = read_node(&self.store, &format!("{path}/type"))?;
                text.map(|text| DeviceType::parse(&text))
            }
        })
    }

    /// The device has no `state` node: it has gone, was refused, or is being written.
    fn without_state(&mut self, id: DeviceId, path: &str) -> Result<bool, xen_store::Error> {
        if self.store.children(None, path)?.is_empty() {
            // The directory has gone: whatever comes there next is another device.
            self.refused.remove(&id);
            let home = self.store.domain_path(id.domid)?;
            if self.devices.contains_key(&id)
                && self.guests.is_alive(id.domid)
                && self.store.children(None, &home)?.is_empty()
            {
                // libxl removes all nodes of a guest that lives just before it destroys it. Otherwise xenstored was
                // started anew and has lost them.
                self.forgotten.entry(id.domid).or_insert_with(|| Some(Instant::now()));
                return Ok(true);
            }
        }
        Ok(self.let_go(id, "its nodes were removed"))
    }

    /// Tells of guests that live on without nodes, and forgets those that have ended.
    pub(super) fn look_at_forgotten(&mut self) {
        self.forgotten.retain(|domid, _| self.guests.is_alive(*domid));
        for (domid, since) in &mut self.forgotten {
            if since.take_if(|since| since.elapsed() >= DESTROYED).is_some() {
                warn!(
                    domid,
                    "xenstore has no nodes of the guest any more, as after a restart of xenstored: its devices are served until it ends; shut it down from inside and create it again to have the toolstack know it"
                );
            }
        }
    }

    /// Leaves a generic device to the backend of its type: to claim its window too would take the guest's accesses
    /// from that one.
    fn leave(&mut self, id: DeviceId, path: &str) {
        self.refused.remove(&id);
        self.let_go(id, "a device of another type was written in its place");
        if let Ok(window) = read_window(&NodeReader::new(&self.store, None, id, path)) {
            for (_, guest) in self.guests.of(id.domid) {
                guest.send(&Command::Release(window.clone()));
            }
        }
    }

    /// Has a new device opened, or says why it is not served.
    fn open_or_refuse(&mut self, id: DeviceId, path: &str) -> Result<bool, xen_store::Error> {
        log_unless_disconnected(
            self.errors.sweep(&self.store, id.domid),
            "error nodes of guests that have ended can't be removed from xenstore: remove them with `xenstore-rm`",
        )?;
        match self.begin_to_open(id, path) {
            Ok(opening) => {
                self.devices.insert(id, Device::new(opening));
                Ok(false)
            }
            Err(AttachError::Refused(Refusal::Node(NodeError::Store(error))))
                if error.is_temporary() || error.is_disconnected() =>
            {
                Err(error)
            }
            Err(error) => self.refuse(id, &error).map(|()| true),
        }
    }

    fn begin_to_open(&self, id: DeviceId, path: &str) -> Result<Stage<B>, AttachError> {
        let read = self.read(&NodeReader::new(&self.store, None, id, path))?;
        open(Arc::clone(&self.backend), read.clone(), self.event_sender.clone())
            .map_err(AttachError::Thread)?;
        Ok(Stage::Opening { read, wanted: true })
    }

    /// Lets the guest run, unless the nodes have changed since they were read: while it was opened, the
    /// toolstack may have written another device in this one's place.
    pub(super) fn announce(&self, id: DeviceId, read: &Read<B>) -> Result<bool, xen_store::Error> {
        let path = &id.path(&self.dir);
        self.store.transaction(|tx| {
            let state = self.store.xenbus_state(Some(tx), path)?;
            let unchanged = match self.read(&NodeReader::new(&self.store, Some(tx), id, path)) {
                Ok(now) => now == *read,
                Err(Refusal::Node(NodeError::Store(error))) => return Err(error),
                Err(_) => false,
            };
            if state != Some(XenbusState::Initialising) || !unchanged {
                return Ok(false);
            }
            let state = format!("{path}/state");
            self.store.write(Some(tx), &state, XenbusState::InitWait.as_str().as_bytes())?;
            Ok(true)
        })
    }

    /// What xenstore says of a device.
    fn read(&self, node: &NodeReader<'_>) -> Result<Read<B>, Refusal> {
        // The backend's own first: it may have a better reason than a missing node.
        let config = self.backend.read(node)?;
        Ok((DeviceNode::read(node)?, config))
    }

    /// Answers the window of a device that is refused, so that the guest finds nothing there.
    fn reserve(&mut self, id: DeviceId, path: &str) -> Result<(), AttachError> {
        let window = read_window(&NodeReader::new(&self.store, None, id, path));
        let window = window.map_err(Refusal::from)?;
        let (transport, places) = (self.transport_of(id.domid), self.tell_places(id.domid));
        let guest = self.guests.take_on_any(id.domid, transport, &self.backend)?;
        guest.send(&places);
        guest.send(&Command::Reserve(id, window));
        self.reserving.insert(id);
        Ok(())
    }

    /// Says why a device is not served where the integrator looks, and ends libxl's wait.
    pub(super) fn refuse(
        &mut self,
        id: DeviceId,
        error: &AttachError,
    ) -> Result<(), xen_store::Error> {
        let path = &id.path(&self.dir);
        let mut message = chain(error).to_string();
        if let Some(advice) = error.advice() {
            message = format!("{message}: {advice}");
        }
        warn!(%id, error = message, "the device is not served: correct the error, then `xl destroy` the guest, if it runs, and `xl create` it");
        let read = self.read(&NodeReader::new(&self.store, None, id, path)).ok();
        self.refused.insert(id, Refused { reason: message.clone(), read });
        self.errors.write(&self.store, id, path, &message);
        match id.kind {
            // libxl gives up at once, naming this path, instead of waiting for its time-out.
            Kind::VirtioDisk => node::remove(&self.store, &format!("{path}/state")),
            // libxl doesn't wait for these, so the guest will run, and its driver look.
            Kind::Virtio => {
                self.reserve_or_warn(id, path);
                Ok(())
            }
        }
    }

    /// Answers the window of a device that is not served any more, or says what comes of it if that can't be.
    pub(super) fn reserve_or_warn(&mut self, id: DeviceId, path: &str) {
        if let Err(error) = self.reserve(id, path) {
            warn!(%id, error = %chain(&error), "accesses of the guest to the device's registers are not answered, and its kernel may panic on one: `xl destroy` the guest, and create it again without the device");
        }
    }
}
