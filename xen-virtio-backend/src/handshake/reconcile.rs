//! One device: brought in line with what xenstore says of it.

use std::sync::Arc;

use backend_process::chain;
use tracing::{info, warn};
use xen_store::{Store, StoreExt, XenbusState};

use super::{Handshake, deadline, log_unless_disconnected, refusal::AttachError};
use crate::{
    backend::{Backend, Refusal},
    guest::Attachment,
    host::Host,
    node::{
        self, DeviceId, DeviceNode, DeviceType, Kind, NodeError, NodeReader, listing::read_node,
        read_window,
    },
};

impl<S: Store, H: Host, B: Backend> Handshake<S, H, B> {
    /// Brings what is served in line with what xenstore says of one device. False if its storage holds it up: it
    /// is to be looked at again.
    pub(super) fn reconcile(&mut self, id: DeviceId) -> Result<bool, xen_store::Error> {
        let path = id.path(&self.dir);
        let Some(state) = self.store.xenbus_state(None, &path)? else {
            return self.without_state(id, &path);
        };
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
            let closed = self.guests.detach(id, "the toolstack closed it");
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
                && self.refused.contains(&id)
                && self.store.exists(None, &format!("{path}/error"))?
            {
                return Ok(true);
            }
            self.refused.remove(&id);
            if !self.guests.detach(id, "another device was written in its place") {
                return Ok(false);
            }
            return self.attach_or_refuse(id, &path);
        }
        if !self.guests.contains(id) && self.refused.insert(id) {
            warn!(%id, %state, "the device is not served: its state in xenstore is that of a device an earlier backend has served; `xl destroy` and `xl create` the guest to have it served again");
        }
        Ok(true)
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
            if self.guests.is_alive(id.domid) && self.store.children(None, &home)?.is_empty() {
                // No toolstack removes all nodes of a guest that lives: xenstored was started anew and has lost
                // them.
                if self.forgotten.insert(id.domid) {
                    warn!(
                        domid = id.domid,
                        "xenstore has no nodes of the guest any more, as after a restart of xenstored: its devices are served until it ends; shut it down from inside and create it again to have the toolstack know it"
                    );
                }
                return Ok(true);
            }
        }
        Ok(self.guests.detach(id, "its nodes were removed"))
    }

    /// Leaves a generic device to the backend of its type: to claim its window too would take the guest's accesses
    /// from that one.
    fn leave(&mut self, id: DeviceId, path: &str) {
        self.refused.remove(&id);
        self.guests.detach(id, "a device of another type was written in its place");
        if let Ok(window) = read_window(&NodeReader::new(&self.store, None, id, path)) {
            self.guests.release(id.domid, window);
        }
    }

    /// Serves a new device, or says why not. False if it is no longer the one that was looked at.
    fn attach_or_refuse(&mut self, id: DeviceId, path: &str) -> Result<bool, xen_store::Error> {
        log_unless_disconnected(
            self.errors.sweep(&self.store, id.domid),
            "error nodes of guests that have ended can't be removed from xenstore: remove them with `xenstore-rm`",
        )?;
        let read = match self.attach(id, path) {
            Ok(read) => read,
            Err(AttachError::Refused(Refusal::Node(NodeError::Store(error))))
                if error.is_temporary() || error.is_disconnected() =>
            {
                return Err(error);
            }
            Err(error) => {
                let refused = self.refuse(id, path, &error);
                if id.kind == Kind::Virtio {
                    // libxl doesn't wait for these, so the guest will run, and its driver look.
                    self.reserve(id, path);
                }
                return refused.map(|()| true);
            }
        };
        match self.announce(id, path, &read) {
            Ok(true) => info!(%id, "serving"),
            Ok(false) => return Ok(false),
            Err(error) => {
                // What is served has been announced, so that an `Initialising` device is always a new one. A lost
                // connection leaves open whether it was.
                if !error.is_disconnected() {
                    self.guests.detach(id, "its state can't be written");
                }
                return Err(error);
            }
        }
        self.errors.remove(&self.store, id).map(|()| true)
    }

    /// Lets the guest run, unless the nodes have changed since they were read: while it was opened, the
    /// toolstack may have written another device in this one's place.
    fn announce(
        &self,
        id: DeviceId,
        path: &str,
        read: &(DeviceNode, B::Config),
    ) -> Result<bool, xen_store::Error> {
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
    fn read(&self, node: &NodeReader<'_>) -> Result<(DeviceNode, B::Config), Refusal> {
        // The backend's own first: it may have a better reason than a missing node.
        let config = self.backend.read(node)?;
        Ok((DeviceNode::read(node)?, config))
    }

    fn attach(&mut self, id: DeviceId, path: &str) -> Result<(DeviceNode, B::Config), AttachError> {
        let (node, config) = self.read(&NodeReader::new(&self.store, None, id, path))?;
        if self.stopping {
            return Err(AttachError::Stopping { program: B::NAME, guests: self.guests.len() });
        }
        let (backend, its) = (Arc::clone(&self.backend), config.clone());
        let opened = deadline::within(deadline::OPEN, move || backend.open(&node, &its));
        let resources = opened.map_err(AttachError::Thread)?.ok_or_else(|| {
            AttachError::Slow { device: B::describe(&config), seconds: deadline::OPEN.as_secs() }
        })??;
        let attachment = Attachment { node, config: config.clone(), resources };
        let text = B::describe(&config);
        let figures = self.guests.attach(id, Some(text), |guest| guest.attach(attachment))?;
        self.figures.push(Arc::downgrade(&figures));
        Ok((node, config))
    }

    /// Answers the window of a device that is refused, so that the guest finds nothing there.
    fn reserve(&mut self, id: DeviceId, path: &str) {
        let reserved = read_window(&NodeReader::new(&self.store, None, id, path))
            .map_err(|error| AttachError::from(Refusal::from(error)))
            .and_then(|window| Ok(self.guests.attach(id, None, |guest| guest.reserve(window))?));
        if let Err(error) = reserved {
            warn!(%id, error = %chain(&error), "accesses of the guest to the device's registers are not answered, and its kernel may panic on one: `xl destroy` the guest, and create it again without the device");
        }
    }

    /// Says why a device is not served where the integrator looks, and ends libxl's wait.
    fn refuse(
        &mut self,
        id: DeviceId,
        path: &str,
        error: &AttachError,
    ) -> Result<(), xen_store::Error> {
        let mut message = chain(error).to_string();
        if let Some(advice) = error.advice() {
            message = format!("{message}: {advice}");
        }
        warn!(%id, error = message, "the device is not served: correct the error, then `xl destroy` the guest, if it runs, and `xl create` it");
        self.refused.insert(id);
        self.errors.write(&self.store, id, path, &message);
        match id.kind {
            // libxl gives up at once, naming this path, instead of waiting for its time-out.
            Kind::VirtioDisk => node::remove(&self.store, &format!("{path}/state")),
            Kind::Virtio => Ok(()),
        }
    }
}
