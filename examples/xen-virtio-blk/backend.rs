//! The toolstack's handshake: which disks there are, and which are served.

use std::{
    collections::BTreeSet,
    fmt, mem,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};
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
    nodes::{DiskNodes, NodeError, read_window},
    platform::Platform,
    retry::Retries,
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
    retries: Retries<Task>,
    /// Every device that was there at the start has been looked at.
    listed: bool,
    /// Of the disks that are there, and of some that aren't any more.
    figures: Vec<Weak<Figures>>,
}

/// What may have to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    /// Looking for devices.
    List,
    /// Bringing one in line with xenstore.
    Device(DeviceId),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List => f.write_str("the list of devices"),
            Self::Device(id) => id.fmt(f),
        }
    }
}

impl<S: Store, P: Platform> Backend<S, P> {
    /// Starts watching. Disks that already wait are served by the first [`Backend::handle_events`].
    pub fn new(store: S, platform: P, settings: Settings) -> Result<Self, xen_store::Error> {
        // A driver domain has its own number here; dom0 may have no node at all.
        let node = "domid";
        let number = |text: String| {
            let number = text.trim().parse();
            number.map_err(|source| xen_store::Error::NotNumber { path: node.into(), source })
        };
        let domid = store.lookup(None, node)?.map_or(Ok(0), number)?;
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
            retries: Retries::new(),
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
        let (mut touched, mut list) = (BTreeSet::new(), false);
        while let Some(WatchEvent { path, .. }) = self.store.next_event()? {
            if path == "@releaseDomain" {
                self.guests.release_dead();
            } else if let Some(id) = DeviceId::from_path(&self.dir, &path) {
                touched.insert(id);
            } else {
                list = true;
            }
        }
        for task in self.retries.due(Instant::now()) {
            match task {
                Task::List => list = true,
                Task::Device(id) => {
                    touched.insert(id);
                }
            }
        }
        let listed = list && self.list(&mut touched)?;
        for &id in &touched {
            let reconciled = self.reconcile(id);
            self.settle(Task::Device(id), reconciled)?;
        }
        if listed && !mem::replace(&mut self.listed, true) {
            let images = listing::images(&self.store, &self.dir, &touched);
            if let Some(images) = survive(images, "tables that match no disk are not told of")? {
                self.settings.warn_of_unmatched(&images);
            }
        }
        Ok(())
    }

    /// How long [`Backend::handle_events`] may wait for the next event; `None`: until it comes.
    pub fn wait(&self) -> Option<Duration> {
        self.retries.wait(Instant::now())
    }

    /// Adds every device that is in xenstore, or was when it was last looked at. False if that failed.
    fn list(&mut self, touched: &mut BTreeSet<DeviceId>) -> Result<bool, xen_store::Error> {
        let devices = listing::devices(&self.store, &self.dir);
        let listed = self.settle(
            Task::List,
            devices.map(|devices| {
                touched.extend(devices);
                true
            }),
        )?;
        touched.extend(self.guests.devices());
        touched.extend(&self.refused);
        Ok(listed)
    }

    /// Has what could not be done tried again. Gives whether it was done.
    fn settle(
        &mut self,
        task: Task,
        result: Result<bool, xen_store::Error>,
    ) -> Result<bool, xen_store::Error> {
        let done = match result {
            Ok(done) => done,
            Err(error) if error.is_disconnected() => return Err(error),
            Err(error) => {
                if self.retries.failed(task, Instant::now()) {
                    warn!(%task, %error, "xenstore refused: it is tried again until it succeeds");
                } else {
                    debug!(%task, %error, "xenstore refused again");
                }
                return Ok(false);
            }
        };
        if !done {
            self.retries.failed(task, Instant::now());
        } else if self.retries.done(task) {
            info!(%task, "done after all");
        }
        Ok(done)
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

    /// Brings what is served in line with what xenstore says of one device. False if its storage holds it up: it
    /// is to be looked at again.
    fn reconcile(&mut self, id: DeviceId) -> Result<bool, xen_store::Error> {
        let path = id.path(&self.dir);
        let Some(state) = self.store.xenbus_state(None, &path)? else {
            return self.without_state(id, &path);
        };
        if id.kind == Kind::Virtio {
            match read_node(&self.store, &format!("{path}/type"))? {
                Some(kind) if kind != BLOCK_TYPE => {
                    self.leave(id, &path);
                    return Ok(true);
                }
                // Whose it is will be known when its type is written.
                None if state == XenbusState::Initialising => return Ok(true),
                _ => {}
            }
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
            if !self.guests.detach(id, "another device has come in its place") {
                return Ok(false);
            }
            return self.take_on(id, &path);
        }
        if !self.guests.contains(id) && self.refused.insert(id) {
            warn!(%id, %state, "an earlier backend has served this disk: restart the guest to serve it again");
        }
        Ok(true)
    }

    /// The device has no `state` node: it has gone, was refused, or is being written.
    fn without_state(&mut self, id: DeviceId, path: &str) -> Result<bool, xen_store::Error> {
        if self.store.children(None, path)?.is_empty() {
            // The directory has gone: whatever comes there next is another device.
            self.refused.remove(&id);
        }
        Ok(self.guests.detach(id, "its nodes were removed"))
    }

    /// Leaves a generic device to the backend of its type: to claim its window too would take the guest's accesses
    /// from that one.
    fn leave(&mut self, id: DeviceId, path: &str) {
        self.refused.remove(&id);
        self.guests.detach(id, "a device of another type has come in its place");
        if let Ok(window) = read_window(&self.store, path) {
            self.guests.release(id.domid, window);
        }
    }

    /// Serves a new device, or says why not. False if it is no longer the one that was looked at.
    fn take_on(&mut self, id: DeviceId, path: &str) -> Result<bool, xen_store::Error> {
        survive(self.errors.sweep(&self.store, id.domid), "old errors stay in xenstore")?;
        let nodes = match self.attach(id, path) {
            Ok(nodes) => nodes,
            Err(AttachError::Nodes(NodeError::Store(error)))
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
        match self.announce(id, path, &nodes) {
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

    /// Lets the guest run, unless the nodes have changed since they were read: while the image was opened, the
    /// toolstack may have written another device in this one's place.
    fn announce(
        &self,
        id: DeviceId,
        path: &str,
        nodes: &DiskNodes,
    ) -> Result<bool, xen_store::Error> {
        self.store.transaction(|tx| {
            let state = self.store.xenbus_state(Some(tx), path)?;
            let unchanged = match DiskNodes::read(&self.store, Some(tx), id, path) {
                Ok(now) => now == *nodes,
                Err(NodeError::Store(error)) => return Err(error),
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

    fn attach(&mut self, id: DeviceId, path: &str) -> Result<DiskNodes, AttachError> {
        if id.kind == Kind::Virtio {
            return Err(AttachError::GenericVirtio);
        }
        let nodes = DiskNodes::read(&self.store, None, id, path)?;
        let settings = self.settings.of(&nodes.image).clone();
        let storage = attach::open(&nodes, &settings)?;
        let spec = DiskSpec { id, nodes: nodes.clone(), settings };
        let figures = self.guests.attach(id, |guest| guest.attach(spec, storage))?;
        self.figures.push(Arc::downgrade(&figures));
        Ok(nodes)
    }

    /// Answers the window of a device that is refused, so that the guest finds nothing there.
    fn reserve(&mut self, id: DeviceId, path: &str) {
        let reserved = read_window(&self.store, path)
            .map_err(AttachError::from)
            .and_then(|window| Ok(self.guests.attach(id, |guest| guest.reserve(window))?));
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
