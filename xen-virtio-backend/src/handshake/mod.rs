//! The toolstack's handshake: which devices there are, and which are served.

mod deadline;
mod reconcile;
mod refusal;
mod retry;

use std::{
    collections::BTreeSet,
    fmt, io, mem,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use backend_process::chain;
use tracing::{debug, info, warn};
use xen_ioreq::DomId;
use xen_store::{Store, StoreExt, WatchEvent};

use crate::{
    backend::Backend,
    guest::{Guest, Guests, MapBudget, NoticeBox, Notices},
    host::Host,
    node::{DeviceId, ErrorNodes, Kind, NodeError, NodeReader, listing},
};

pub(crate) use retry::Retries;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Xenstore has no place for this domain's backends, or can't be asked.
    #[error(transparent)]
    Store(#[from] xen_store::Error),
    /// No descriptor by which the guests' threads could be heard.
    #[error("can't make an eventfd")]
    Notices(#[source] io::Error),
}

/// Serves every device of one backend's below one domain's `backend/` directory.
pub struct Handshake<S: Store, H: Host, B: Backend> {
    backend: Arc<B>,
    store: S,
    /// Where the kinds stand.
    dir: String,
    guests: Guests<H, B>,
    notices: NoticeBox,
    errors: ErrorNodes,
    /// Devices that were looked at and are not served: not to be tried at each of their events.
    refused: BTreeSet<DeviceId>,
    retries: Retries<Task>,
    /// Guests that live, though xenstore has no nodes of them any more.
    forgotten: BTreeSet<DomId>,
    /// New devices are refused.
    stopping: bool,
    /// Every device that was there at the start has been looked at.
    listed: bool,
    /// Of the devices that are there, and of some that aren't any more.
    figures: Vec<Weak<B::Figures>>,
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

impl<S: Store, H: Host, B: Backend> Handshake<S, H, B> {
    /// Starts watching. Devices that already wait are served by the first
    /// [`handle_events`](Self::handle_events). Up to `budget` of each guest's memory is mapped.
    ///
    /// # Errors
    /// xenstore refuses to say what this domain is, or to be watched; or there is no descriptor to be had.
    pub fn new(store: S, host: H, backend: B, budget: MapBudget) -> Result<Self, HandshakeError> {
        // A driver domain has its own number here; dom0 may have no node at all.
        let node = "domid";
        let number = |text: String| {
            let number = text.trim().parse();
            number.map_err(|source| xen_store::Error::NotNumber { path: node.into(), source })
        };
        let domid = store.lookup(None, node)?.map_or(Ok(0), number)?;
        let home = store.domain_path(domid)?;
        let dir = format!("{home}/backend");
        watch(&store, &dir)?;
        let (notices, notice_box) = Notices::channel().map_err(HandshakeError::Notices)?;
        info!(dir, "watching for virtio devices");
        Ok(Self {
            backend: Arc::new(backend),
            store,
            dir,
            guests: Guests::new(host, budget, notices),
            notices: notice_box,
            errors: ErrorNodes::new(home),
            refused: BTreeSet::new(),
            retries: Retries::new(),
            forgotten: BTreeSet::new(),
            stopping: false,
            listed: false,
            figures: Vec::new(),
        })
    }

    /// Readable when a guest's thread has something for [`handle_events`](Self::handle_events).
    pub fn notices(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
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
                self.release_dead();
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
        for (id, text) in self.notices.take() {
            if self.guests.contains(id) {
                self.errors.write(&self.store, id, &id.path(&self.dir), &text);
            }
        }
        let listed = list && self.list(&mut touched)?;
        for &id in &touched {
            let reconciled = self.reconcile(id);
            self.settle(Task::Device(id), reconciled)?;
        }
        if listed && !mem::replace(&mut self.listed, true) {
            self.tell_listed(&touched)?;
        }
        Ok(())
    }

    fn tell_listed(&self, devices: &BTreeSet<DeviceId>) -> Result<(), xen_store::Error> {
        let with_paths: Vec<_> = devices.iter().map(|id| (*id, id.path(&self.dir))).collect();
        let nodes: Vec<_> = with_paths
            .iter()
            .map(|(id, path)| NodeReader::new(&self.store, None, *id, path))
            .collect();
        match self.backend.on_listed(&nodes) {
            Err(NodeError::Store(error)) => log_unless_disconnected::<()>(
                Err(error),
                "the settings can't be compared with the devices that there are: check their names",
            )
            .map(drop),
            _ => Ok(()),
        }
    }

    /// How long [`handle_events`](Self::handle_events) may wait for the next event; `None`: until it comes.
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
                    warn!(%task, error = %chain(&error), "xenstored refused a request, which is repeated until it succeeds: see its log, and raise its quota if the error is EQUOTA");
                } else {
                    debug!(%task, error = %chain(&error), "xenstored refused the request again");
                }
                return Ok(false);
            }
        };
        if !done {
            self.retries.failed(task, Instant::now());
        } else if self.retries.done(task) {
            info!(%task, "xenstored no longer refuses the request");
        }
        Ok(done)
    }

    /// Logs what every device has done so far.
    pub fn report(&self) {
        self.guests.iter().for_each(Guest::report);
    }

    /// What every device has done so far.
    pub fn figures(&mut self) -> Vec<Arc<B::Figures>> {
        self.figures.retain(|device| device.strong_count() > 0);
        self.figures.iter().filter_map(Weak::upgrade).collect()
    }

    /// Has every device look at what it stands on, as its image's size, and tell its guest of what has changed.
    pub fn refresh(&self) {
        self.guests.iter().for_each(Guest::refresh);
    }

    /// Refuses new devices from now on. Gives how many guests are served.
    pub fn begin_to_stop(&mut self) -> usize {
        self.stopping = true;
        for (domid, devices) in self.guests.by_guest() {
            info!(domid, devices, "waiting for the guest to end");
        }
        self.guests.len()
    }

    /// How many guests need this process.
    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    /// Lets go of everything. A guest that still runs loses its disks: its next access to one of their
    /// windows has nobody to answer it.
    pub fn abandon(self) {
        for (domid, devices) in self.guests.by_guest() {
            warn!(
                domid,
                devices,
                "this program ends while the guest runs: it loses these devices, and its kernel will panic on its next access to one; `xl destroy` it, and create it again when {} runs",
                B::NAME
            );
        }
    }

    /// Goes on over a new connection to xenstore, which is looked through as at the start.
    ///
    /// # Errors
    /// Its watches can't be set. The connection is of no use.
    pub fn reconnect(&mut self, store: S) -> Result<(), xen_store::Error> {
        watch(&store, &self.dir)?;
        self.store = store;
        Ok(())
    }

    /// Lets go of the guests that have ended.
    pub fn release_dead(&mut self) {
        self.guests.release_dead();
        self.forgotten.retain(|domid| self.guests.is_alive(*domid));
    }

    /// Whether there are guests of whose end xenstore will not tell.
    pub fn has_forgotten_guests(&self) -> bool {
        !self.forgotten.is_empty()
    }
}

/// Has xenstore tell of every device below `dir`, and of the end of guests.
fn watch(store: &dyn Store, dir: &str) -> Result<(), xen_store::Error> {
    for kind in Kind::ALL {
        store.watch(&format!("{dir}/{}", kind.dir()), kind.dir())?;
    }
    store.watch("@releaseDomain", "release")
}

/// What xenstore refuses concerns one node; only a lost connection concerns all.
fn log_unless_disconnected<T>(
    result: Result<T, xen_store::Error>,
    consequence: &str,
) -> Result<Option<T>, xen_store::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_disconnected() => Err(error),
        Err(error) => {
            warn!(error = %chain(&error), "{consequence}");
            Ok(None)
        }
    }
}
