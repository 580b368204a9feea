//! The toolstack's handshake: which disks there are, and which are served.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io, mem,
    sync::{Arc, Weak},
    time::Duration,
};

use tracing::{info, warn};
use xen_ioreq::{DeviceModel, DomId};
use xen_store::{Store, StoreExt, WatchEvent, XenbusState};

use crate::{
    device_id::{DeviceId, Kind},
    disk::DiskSpec,
    figures::Figures,
    guest::{Guest, GuestError},
    listing::{self, read_node},
    nodes::{DiskNodes, NodeError, read_window},
    patience::within,
    platform::Platform,
    settings::{DiskSettings, Settings},
    storage::Storage,
};

/// Why a device is not served. What it says is written to the device's error nodes.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(
        "virtio = [ \"type=…\" ] names no image, so there is nothing to serve: write \
         disk = [ \"/path,raw,xvda,rw,backendtype=standalone,specification=virtio\" ] instead"
    )]
    GenericVirtio,
    #[error(transparent)]
    Nodes(#[from] NodeError),
    #[error(transparent)]
    Image(#[from] virtio_blk_dev::OpenError),
    #[error("image {path} did not open within {seconds} s: is its storage there?")]
    Slow { path: String, seconds: u64 },
    #[error("no thread to open the image with: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// The `type` of a generic device that is a disk (libxl's `virtio,device<ID>`, virtio 1.2 §5).
const BLOCK_TYPE: &str = "virtio,device2";

/// How long one device may hold up the handshakes of the others. libxl gives a backend 10 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// Serves every disk below one domain's `backend/` directory.
pub struct Backend<S: Store, P: Platform> {
    store: S,
    platform: P,
    /// `/local/domain/<own domid>`.
    home: String,
    /// Where the kinds stand.
    dir: String,
    guests: BTreeMap<DomId, Served<P>>,
    /// Devices that were looked at and are not served: not to be tried at each of their events.
    refused: BTreeSet<DeviceId>,
    settings: Settings,
    /// Every device that was there at the start has been looked at.
    listed: bool,
    /// Of the disks that are there, and of some that aren't any more.
    figures: Vec<Weak<Figures>>,
}

struct Served<P: Platform> {
    guest: Guest,
    disks: BTreeSet<DeviceId>,
    /// Asks whether the guest still lives.
    model: Arc<P::Model>,
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
            platform,
            home,
            dir,
            guests: BTreeMap::new(),
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
                self.release_dead_guests();
            } else if let Some(id) = DeviceId::from_path(&self.dir, &path) {
                touched.insert(id);
            } else {
                let devices = listing::devices(&self.store, &self.dir);
                let devices = survive(devices, "the devices can't be listed")?;
                listed |= devices.is_some();
                touched.extend(devices.unwrap_or_default());
                touched.extend(self.served());
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
        self.guests.values().for_each(|served| served.guest.report());
    }

    /// What every disk has done so far.
    pub fn figures(&mut self) -> Vec<Arc<Figures>> {
        self.figures.retain(|disk| disk.strong_count() > 0);
        self.figures.iter().filter_map(Weak::upgrade).collect()
    }

    /// Has every disk take on the size that its image has now, and tell its guest.
    pub fn refresh_capacities(&self) {
        self.guests.values().for_each(|served| served.guest.refresh_capacities());
    }

    /// Lets go of everything. A guest that still runs loses its disks: its next access to one of their
    /// windows has nobody to answer it.
    pub fn stop(self) {
        for id in self.served() {
            warn!(%id, "stopping under a guest that may be running: it loses this disk");
        }
    }

    fn served(&self) -> Vec<DeviceId> {
        self.guests.values().flat_map(|served| served.disks.iter().copied()).collect()
    }

    fn is_served(&self, id: DeviceId) -> bool {
        self.guests.get(&id.domid).is_some_and(|served| served.disks.contains(&id))
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
            self.detach(id, "its nodes were removed");
            return Ok(());
        };
        let leaving = state == XenbusState::Closing || online.as_deref() == Some("0");
        if leaving {
            let closed = self.detach(id, "the toolstack closed it");
            if closed && state != XenbusState::Closed {
                self.store.change_xenbus_state(&path, state, XenbusState::Closed)?;
            }
        } else if state == XenbusState::Initialising && !self.refused.contains(&id) {
            self.take_on(id, &path, state)?;
        } else if !self.is_served(id) && self.refused.insert(id) {
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
        if !self.is_served(id) {
            survive(self.sweep_errors(id.domid), "old errors stay in xenstore")?;
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
        self.remove(&self.error_dir(id))
    }

    fn attach(&mut self, id: DeviceId, path: &str) -> Result<(), AttachError> {
        if id.kind == Kind::Virtio {
            return Err(AttachError::GenericVirtio);
        }
        let nodes = DiskNodes::read(&self.store, id, path)?;
        let settings = self.settings.of(&nodes.image).clone();
        let storage = open(&nodes, &settings)?;
        let spec = DiskSpec { id, nodes, settings };
        let figures = self.with_guest(id, |guest| guest.attach(spec, storage))?;
        self.figures.push(Arc::downgrade(&figures));
        Ok(())
    }

    /// Answers the window of a device that is refused, so that the guest finds nothing there.
    fn reserve(&mut self, id: DeviceId, path: &str) {
        let reserved = read_window(&self.store, path)
            .map_err(AttachError::from)
            .and_then(|window| Ok(self.with_guest(id, |guest| guest.reserve(id, window))?));
        if let Err(error) = reserved {
            warn!(%id, %error, "the device's window stays unanswered: the guest may crash on it");
        }
    }

    /// Does something for a device with its guest, which is taken on for its first device.
    fn with_guest<T>(
        &mut self,
        id: DeviceId,
        attach: impl FnOnce(&Guest) -> Result<T, GuestError>,
    ) -> Result<T, GuestError> {
        let served = match self.guests.entry(id.domid) {
            Entry::Occupied(served) => served.into_mut(),
            Entry::Vacant(place) => {
                let handles = self
                    .platform
                    .open(id.domid)
                    .map_err(|source| GuestError::Open { domid: id.domid, source })?;
                let model = Arc::clone(&handles.model);
                let guest = Guest::start(id.domid, handles, PATIENCE)?;
                place.insert(Served { guest, disks: BTreeSet::new(), model })
            }
        };
        let attached = attach(&served.guest);
        if attached.is_ok() {
            served.disks.insert(id);
        } else if served.disks.is_empty() {
            self.guests.remove(&id.domid);
        }
        attached
    }

    /// False if the disk's storage keeps it from being closed.
    fn detach(&mut self, id: DeviceId, reason: &str) -> bool {
        let Some(served) = self.guests.get_mut(&id.domid) else { return true };
        let mut closed = true;
        if served.disks.remove(&id) {
            info!(%id, reason, "letting go");
            if let Err(error) = served.guest.detach(id) {
                warn!(%id, %error, "not closed yet");
                closed = false;
            }
        }
        if served.disks.is_empty() {
            self.guests.remove(&id.domid);
        }
        closed
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
        // Where Linux's xenbus_dev_error() writes; it outlives the device's own directory.
        for node in [format!("{}/error", self.error_dir(id)), format!("{path}/error")] {
            if let Err(error) = self.store.write(None, &node, message.as_bytes()) {
                warn!(%id, node, %error, "the error could not be written to xenstore");
            }
        }
        match id.kind {
            // libxl gives up at once, naming this path, instead of waiting for its time-out.
            Kind::VirtioDisk => self.remove(&format!("{path}/state")),
            Kind::Virtio => Ok(()),
        }
    }

    /// libxl removes a refused device's directory and its guest; what stands in the error directory is
    /// there to be read after that. It goes when another guest comes, so that errors don't pile up.
    fn sweep_errors(&self, newcomer: DomId) -> Result<(), xen_store::Error> {
        for kind in Kind::ALL {
            let top = format!("{}/error/backend/{}", self.home, kind.dir());
            for name in self.store.children(None, &top)? {
                let Ok(domid) = name.parse::<DomId>() else { continue };
                if domid != newcomer
                    && self.store.children(None, &self.store.domain_path(domid)?)?.is_empty()
                {
                    self.remove(&format!("{top}/{name}"))?;
                }
            }
        }
        Ok(())
    }

    fn error_dir(&self, id: DeviceId) -> String {
        format!("{}/error/{}", self.home, id.path("backend"))
    }

    /// Removes a node that may be missing.
    fn remove(&self, path: &str) -> Result<(), xen_store::Error> {
        match self.store.rm(None, path) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// `@releaseDomain` names no domain, so every guest is asked.
    fn release_dead_guests(&mut self) {
        self.guests.retain(|domid, served| {
            let alive = served.model.nr_vcpus().is_ok();
            if !alive {
                info!(domid, "the guest is gone");
            }
            alive
        });
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

fn open(nodes: &DiskNodes, settings: &DiskSettings) -> Result<Storage, AttachError> {
    let (path, read_only, settings) = (nodes.image.clone(), nodes.read_only, settings.clone());
    let opened = within(PATIENCE, move || Storage::open(&path, read_only, &settings));
    let slow = || AttachError::Slow {
        path: nodes.image.display().to_string(),
        seconds: PATIENCE.as_secs(),
    };
    Ok(opened.map_err(AttachError::Thread)?.ok_or_else(slow)??)
}
