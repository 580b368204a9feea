//! The toolstack's handshake: which devices there are, and which are served. It waits for no guest and no storage, but
//! hears of them by events.

mod event;
mod figures;
mod guest;
mod guests;
mod on_bus;
mod open;
mod places;
mod progress;
mod reconcile;
mod refusal;
mod retry;
mod stage;
mod status;
mod store;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt, io, mem,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use backend_process::chain;
use tracing::{debug, info, warn};
use xen_ioreq::DomId;
use xen_store::{Store, WatchEvent};

use crate::{
    backend::Backend,
    control::{GuestName, Replies},
    guest::{Command, MapBudget},
    launch::Launch,
    node::{DeviceId, ErrorNodes, NodeError, NodeReader, listing},
    process::GuestKey,
    transport_kind::Transports,
};

use event::{Event, EventBox, EventSender};
use figures::FigureBook;
use guests::Guests;
use places::Places;
pub(crate) use retry::Retries;
use stage::{Device, Refused};
use store::{log_unless_disconnected, watch};

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Xenstore has no place for this domain's backends, or can't be asked.
    #[error(transparent)]
    Store(#[from] xen_store::Error),
    /// No descriptor by which the guests' processes could be heard.
    #[error("can't make an eventfd")]
    Events(#[source] io::Error),
}

/// Serves every device of one backend's below one domain's `backend/` directory.
pub struct Handshake<S: Store, L: Launch, B: Backend> {
    backend: Arc<B>,
    store: S,
    /// Where the kinds stand.
    dir: String,
    guests: Guests<L, B>,
    devices: BTreeMap<DeviceId, Device<B>>,
    events: EventBox<B>,
    event_sender: EventSender<B>,
    /// Events that were taken and not looked at, as xenstore was lost meanwhile.
    unseen: VecDeque<Event<B>>,
    errors: ErrorNodes,
    /// Devices that were looked at and are not served: not to be tried at each of their events.
    refused: BTreeMap<DeviceId, Refused<B>>,
    /// Refused devices whose windows will be answered.
    reserving: BTreeSet<DeviceId>,
    retries: Retries<Task>,
    /// Guests that live, though xenstore has no nodes of them any more; and since when, until that is told.
    forgotten: BTreeMap<DomId, Option<Instant>>,
    /// All devices are to be looked at.
    is_to_list: bool,
    /// Every device that was there at the start has been looked at.
    listed: bool,
    figures: FigureBook<B::Figures>,
    /// Of guests that have devices.
    names: BTreeMap<DomId, GuestName>,
    /// What devices were asked by operators, which process that is, and who waits for the answer.
    orders: BTreeMap<u64, (GuestKey, Replies<B>)>,
    next_order: u64,
    transports: Transports,
    places: Places,
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

impl<S: Store, L: Launch, B: Backend> Handshake<S, L, B> {
    /// Starts watching. Devices that already wait are served by the first
    /// [`handle_events`](Self::handle_events), and processes that an earlier supervisor has left are taken over. Up to
    /// `budget` of each guest's memory is mapped.
    ///
    /// # Errors
    /// xenstore refuses to say what this domain is, or to be watched; or there is no descriptor to be had.
    pub fn new(store: S, launch: L, backend: B, budget: MapBudget) -> Result<Self, HandshakeError> {
        let home = store::home(&store)?;
        let dir = format!("{home}/backend");
        watch(&store, &dir)?;
        let (event_sender, events) = EventBox::channel().map_err(HandshakeError::Events)?;
        info!(dir, "watching for virtio devices");
        let guests = Guests::new(launch, budget, event_sender.clone(), &backend);
        Ok(Self {
            backend: Arc::new(backend),
            store,
            dir,
            guests,
            devices: BTreeMap::new(),
            events,
            event_sender,
            unseen: VecDeque::new(),
            errors: ErrorNodes::new(home),
            refused: BTreeMap::new(),
            reserving: BTreeSet::new(),
            retries: Retries::new(),
            forgotten: BTreeMap::new(),
            is_to_list: false,
            listed: false,
            figures: FigureBook::new(),
            names: BTreeMap::new(),
            orders: BTreeMap::new(),
            next_order: 0,
            transports: Transports::default(),
            places: Places::default(),
        })
    }

    /// Serves guests by these transports, where [`new`](Self::new) serves all by virtio-mmio.
    #[must_use]
    pub fn with_transports(self, transports: Transports) -> Self {
        Self { transports, ..self }
    }

    /// Readable when there is something for [`handle_events`](Self::handle_events) that is not xenstore's.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The store, to poll for events.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Takes in what has happened in xenstore and to the guests since the last call. Waits for neither guests nor
    /// storage.
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
        self.take_events()?;
        let list = list || mem::take(&mut self.is_to_list);
        let listed = list && self.list(&mut touched)?;
        for &id in &touched {
            self.look_at(id)?;
        }
        self.end_what_takes_too_long()?;
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
        let deadlines = self.devices.values().filter_map(Device::deadline);
        let next = deadlines.min().map(|at| at.saturating_duration_since(Instant::now()));
        self.retries.wait(Instant::now()).into_iter().chain(next).min()
    }

    /// Whether no device is being opened, attached or let go of, and no guest is being let go of.
    pub fn is_at_rest(&self) -> bool {
        !self.devices.values().any(Device::is_waiting)
            && self.reserving.is_empty()
            && !self.guests.are_waited_for()
            && !self.is_to_list
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
        touched.extend(self.devices.keys());
        touched.extend(self.refused.keys());
        Ok(listed)
    }

    /// Brings a device in line with xenstore, now or when xenstore no longer refuses that.
    fn look_at(&mut self, id: DeviceId) -> Result<(), xen_store::Error> {
        let reconciled = self.reconcile(id);
        debug!(%id, done = ?reconciled.as_ref().ok(), "looked at what xenstore says of the device");
        self.settle(Task::Device(id), reconciled).map(drop)
    }

    /// Has what could not be done tried again. Gives whether it was done; false is also what was begun.
    fn settle(
        &mut self,
        task: Task,
        result: Result<bool, xen_store::Error>,
    ) -> Result<bool, xen_store::Error> {
        match result {
            Ok(done) => {
                if done && self.retries.done(task) {
                    info!(%task, "xenstored no longer refuses the request");
                }
                Ok(done)
            }
            Err(error) if error.is_disconnected() => Err(error),
            Err(error) => {
                if self.retries.failed(task, Instant::now()) {
                    warn!(%task, error = %chain(&error), "xenstored refused a request, which is repeated until it succeeds: see its log, and raise its quota if the error is EQUOTA");
                } else {
                    debug!(%task, error = %chain(&error), "xenstored refused the request again");
                }
                Ok(false)
            }
        }
    }

    /// Has every device look at what it stands on, as its image's size, and tell its guest of what has changed.
    pub fn refresh(&self) {
        self.guests.tell_all(&Command::Refresh);
    }

    /// How many guests are served.
    pub fn guests(&self) -> usize {
        self.guests.count()
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

    /// Whether there are guests of whose end xenstore will not tell.
    pub fn has_forgotten_guests(&self) -> bool {
        !self.forgotten.is_empty()
    }
}
