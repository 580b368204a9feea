//! The toolstack's handshake: which disks there are, and which are served.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Weak},
};

use tracing::{info, warn};
use xen_store::{Store, StoreExt, WatchEvent, XenbusState};

use crate::{
    attach::{self, AttachError},
    device_id::{DeviceId, Kind},
    disk::DiskSpec,
    error_nodes::{self, ErrorNodes},
    figures::Figures,
    guest::Guest,
    guests::Guests,
    listing::{self, read_node},
    nodes::{DiskNodes, read_window},
    platform::Platform,
    settings::Settings,
};

/// The `type` of a generic device that is a disk (libxl's `virtio,device<ID>`, virtio 1.2 §5).
const BLOCK_TYPE: &str = "virtio,device2";

/// Serves every disk below one domain's `backend/` directory.
pub struct Backend<S: Store, P: Platform> {
    store: S,
    /// Where the kinds stand.
    dir: String,
    guests: Guests<P>,
    errors: ErrorNodes,
    /// Devices that were looked at and are not served: not to be tried at each of their events.
    refused: BTreeSet<DeviceId>,
    settings: Settings,
    /// Every device that was there at the start has been looked at.
    listed: bool,
    /// Of the disks that are there, and of some that aren't any more.
    figures: Vec<Weak<Figures>>,
}

impl<S: Store, P: Platform> Backend<S, P> {
    /// Starts watching. Disks that already wait are served by the first [`Backend::handle_events`].
    pub fn new(store: S, platform: P, settings: Settings) -> Result<Self, xen_store::Error> {
        // A driver domain has its own number here; dom0 may have no node at all.
        let domid = match store.read(None, "domid") {
            Ok(text) => String::from_utf8_lossy(&text).trim().parse().unwrap_or(0),
            Err(error) if error.is_not_found() => 0,
            Err(error) => return Err(error),
        };
        let home = store.domain_path(domid)?;
        let dir = format!("{home}/backend");
        for kind in Kind::ALL {
            store.watch(&format!("{dir}/{}", kind.dir()), kind.dir())?;
        }
        store.watch("@releaseDomain", "release")?;
        info!(dir, "watching for virtio disks");
        Ok(Self {
            store,
            dir,
            guests: Guests::new(platform),
            errors: ErrorNodes::new(home),
            refused: BTreeSet::new(),
            settings,
            listed: false,
            figures: Vec::new(),
        })
    }

    /// The store, to poll for events.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Takes in what has happened in xenstore since the last call.
    ///
    /// # Errors
    ///
    /// The connection is lost. What is served stays so; nothing more can be learnt of it.
    pub fn handle_events(&mut self) -> Result<(), xen_store::Error> {
        // One look at each device is enough, however many events named it.
        let (mut touched, mut listed) = (BTreeSet::new(), false);
        while let Some(WatchEvent { path, .. }) = self.store.next_event()? {
            if path == "@releaseDomain" {
                self.guests.release_dead();
            } else if let Some(id) = DeviceId::from_path(&self.dir, &path) {
                touched.insert(id);
            } else {
                let devices = listing::devices(&self.store, &self.dir);
                let devices = survive(devices, "the devices can't be listed")?;
                listed |= devices.is_some();
                touched.extend(devices.unwrap_or_default());
                touched.extend(self.guests.devices());
            }
        }
        for &id in &touched {
            let reconciled = self.reconcile(id);
            survive(reconciled, &format!("{id} stays as it is until its next event"))?;
        }
        if listed && !mem::replace(&mut self.listed, true) {
            let images = listing::images(&self.store, &self.dir, &touched);
            if let Some(images) = survive(images, "tables that match no disk are not told of")? {
                self.settings.warn_of_unmatched(&images);
            }
        }
        Ok(())
    }

    /// Logs what every disk has done so far.
    pub fn report(&self) {
        self.guests.iter().for_each(Guest::report);
    }

    /// What every disk has done so far.
    pub fn figures(&mut self) -> Vec<Arc<Figures>> {
        self.figures.retain(|disk| disk.strong_count() > 0);
        self.figures.iter().filter_map(Weak::upgrade).collect()
    }

    /// Has every disk take on the size that its image has now, and tell its guest.
    pub fn refresh_capacities(&self) {
        self.guests.iter().for_each(Guest::refresh_capacities);
    }

    /// Lets go of everything. A guest that still runs loses its disks: its next access to one of their
    /// windows has nobody to answer it.
    pub fn stop(self) {
        for id in self.guests.devices() {
            warn!(%id, "stopping under a guest that may be running: it loses this disk");
        }
    }

    /// Brings what is served in line with what xenstore says of one device.
    fn reconcile(&mut self, id: DeviceId) -> Result<(), xen_store::Error> {
        let path = id.path(&self.dir);
        if id.kind == Kind::Virtio
            && read_node(&self.store, &format!("{path}/type"))?
                .is_some_and(|kind| kind != BLOCK_TYPE)
        {
            // Another backend's: to claim its window too would take the guest's accesses from that one.
            return Ok(());
        }
        let state = self.store.xenbus_state(None, &path)?;
        let online = read_node(&self.store, &format!("{path}/online"))?;
        let Some(state) = state else {
            if self.store.children(None, &path)?.is_empty() {
                // The directory has gone: whatever comes there next is another device.
                self.refused.remove(&id);
            }
            self.guests.detach(id, "its nodes were removed");
            return Ok(());
        };
        let leaving = state == XenbusState::Closing || online.as_deref() == Some("0");
        if leaving {
            let closed = self.guests.detach(id, "the toolstack closed it");
            if closed && state != XenbusState::Closed {
                self.store.change_xenbus_state(&path, state, XenbusState::Closed)?;
            }
        } else if state == XenbusState::Initialising && !self.refused.contains(&id) {
            self.take_on(id, &path, state)?;
        } else if !self.guests.contains(id) && self.refused.insert(id) {
            warn!(%id, %state, "an earlier backend has served this disk: restart the guest to serve it again");
        }
        Ok(())
    }

    /// Serves a new device, or says why not. Its state is written even if that was refused before.
    fn take_on(
        &mut self,
        id: DeviceId,
        path: &str,
        state: XenbusState,
    ) -> Result<(), xen_store::Error> {
        if !self.guests.contains(id) {
            survive(self.errors.sweep(&self.store, id.domid), "old errors stay in xenstore")?;
            if let Err(error) = self.attach(id, path) {
                let refused = self.refuse(id, path, &error);
                if id.kind == Kind::Virtio {
                    // libxl doesn't wait for these, so the guest will run, and its driver look.
                    self.reserve(id, path);
                }
                return refused;
            }
            info!(%id, "serving");
        }
        self.store.change_xenbus_state(path, state, XenbusState::InitWait)?;
        self.errors.remove(&self.store, id)
    }

    fn attach(&mut self, id: DeviceId, path: &str) -> Result<(), AttachError> {
        if id.kind == Kind::Virtio {
            return Err(AttachError::GenericVirtio);
        }
        let nodes = DiskNodes::read(&self.store, id, path)?;
        let settings = self.settings.of(&nodes.image).clone();
        let storage = attach::open(&nodes, &settings)?;
        let spec = DiskSpec { id, nodes, settings };
        let figures = self.guests.attach(id, |guest| guest.attach(spec, storage))?;
        self.figures.push(Arc::downgrade(&figures));
        Ok(())
    }

    /// Answers the window of a device that is refused, so that the guest finds nothing there.
    fn reserve(&mut self, id: DeviceId, path: &str) {
        let reserved = read_window(&self.store, path)
            .map_err(AttachError::from)
            .and_then(|window| Ok(self.guests.attach(id, |guest| guest.reserve(id, window))?));
        if let Err(error) = reserved {
            warn!(%id, %error, "the device's window stays unanswered: the guest may crash on it");
        }
    }

    /// Says why a device is not served where the integrator looks, and ends libxl's wait.
    fn refuse(
        &mut self,
        id: DeviceId,
        path: &str,
        error: &AttachError,
    ) -> Result<(), xen_store::Error> {
        let message = format!("{error}");
        warn!(%id, error = message, "not served");
        self.refused.insert(id);
        self.errors.write(&self.store, id, path, &message);
        match id.kind {
            // libxl gives up at once, naming this path, instead of waiting for its time-out.
            Kind::VirtioDisk => error_nodes::remove(&self.store, &format!("{path}/state")),
            Kind::Virtio => Ok(()),
        }
    }
}

/// What xenstore refuses concerns one node; only a lost connection concerns all.
fn survive<T>(
    result: Result<T, xen_store::Error>,
    consequence: &str,
) -> Result<Option<T>, xen_store::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_disconnected() => Err(error),
        Err(error) => {
            warn!(%error, "{consequence}");
            Ok(None)
        }
    }
}
