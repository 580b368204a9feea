//! The guests that are served, and which devices of theirs.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::RangeInclusive,
    time::Duration,
};

use backend_process::chain;
use tracing::{info, warn};
use xen_ioreq::{DomId, Liveness};

use super::{
    error::GuestError,
    handle::{Detaching, Guest},
    map_budget::MapBudget,
    notices::Notices,
};
use crate::{backend::Backend, host::Host, node::DeviceId};

/// How long a guest's thread may hold up the handshakes of other guests. libxl gives a backend 10 s.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Every guest that has, or had, a device here. A guest is taken on for its first device and stays until its domain
/// ends, even when its devices are closed before: an access to their windows that nobody answers would be an
/// external abort in the guest.
pub(crate) struct Guests<H: Host, B: Backend> {
    host: H,
    /// For each guest.
    budget: MapBudget,
    notices: Notices,
    guests: BTreeMap<DomId, Served<H, B>>,
}

struct Served<H: Host, B: Backend> {
    guest: Guest<B>,
    /// In words; a refused device whose window is answered has none.
    devices: BTreeMap<DeviceId, Option<String>>,
    /// Devices whose storage has kept them from being closed so far.
    closing: BTreeMap<DeviceId, Detaching>,
    /// Tells whether the guest still lives.
    liveness: Liveness<H::Model>,
}

impl<H: Host, B: Backend> Served<H, B> {
    fn is_alive(&self) -> bool {
        // What could not be asked says nothing of the guest.
        !matches!(self.liveness.is_alive(), Ok(false))
    }
}

impl<H: Host, B: Backend> Guests<H, B> {
    /// What devices have to say goes to `notices`.
    pub(crate) fn new(host: H, budget: MapBudget, notices: Notices) -> Self {
        Self { host, budget, notices, guests: BTreeMap::new() }
    }

    /// Each guest, to be told something.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Guest<B>> {
        self.guests.values().map(|served| &served.guest)
    }

    /// Every device that is served, or not closed yet.
    pub(crate) fn devices(&self) -> Vec<DeviceId> {
        let all = |served: &Served<H, B>| {
            let closing = served.closing.keys().copied();
            served.devices.keys().copied().chain(closing).collect::<Vec<_>>()
        };
        self.guests.values().flat_map(all).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.guests.len()
    }

    /// Each guest's devices, as text.
    pub(crate) fn by_guest(&self) -> impl Iterator<Item = (DomId, String)> {
        self.guests.iter().map(|(domid, served)| {
            let devices = served
                .devices
                .iter()
                .filter_map(|(id, text)| text.as_ref().map(|text| format!("{id} ({text})")));
            (*domid, devices.collect::<Vec<_>>().join(", "))
        })
    }

    /// Whether a guest is served and lives.
    pub(crate) fn is_alive(&self, domid: DomId) -> bool {
        self.guests.get(&domid).is_some_and(Served::is_alive)
    }

    pub(crate) fn contains(&self, id: DeviceId) -> bool {
        self.guests.get(&id.domid).is_some_and(|served| served.devices.contains_key(&id))
    }

    /// Does something for a device with its guest, which is taken on for its first device.
    pub(crate) fn attach<T>(
        &mut self,
        id: DeviceId,
        text: Option<String>,
        attach: impl FnOnce(&Guest<B>) -> Result<T, GuestError>,
    ) -> Result<T, GuestError> {
        let (served, new) = match self.guests.entry(id.domid) {
            Entry::Occupied(served) => (served.into_mut(), false),
            Entry::Vacant(place) => {
                let handles = self
                    .host
                    .open(id.domid)
                    .map_err(|source| GuestError::Open { domid: id.domid, source })?;
                let (guest, liveness) =
                    Guest::start(id.domid, handles, self.budget, self.notices.clone(), TIMEOUT)?;
                let (devices, closing) = Default::default();
                (place.insert(Served { guest, devices, closing, liveness }), true)
            }
        };
        let attached = attach(&served.guest);
        if attached.is_ok() {
            served.devices.insert(id, text);
        } else if new {
            self.guests.remove(&id.domid);
        }
        attached
    }

    /// False if the device's storage keeps it from being closed: to be called again. Its window is answered as that
    /// of no device.
    pub(crate) fn detach(&mut self, id: DeviceId, reason: &str) -> bool {
        let Some(served) = self.guests.get_mut(&id.domid) else { return true };
        if served.devices.remove(&id).is_some() {
            info!(%id, reason, "closing the device");
            let detaching = served.guest.detach(id);
            if !detaching.is_done(TIMEOUT) {
                warn!(%id, "the device is not closed yet, as what one of the guest's devices stands on does not answer: check the storage of its images");
                served.closing.insert(id, detaching);
            }
        } else if let Some(detaching) = served.closing.remove(&id)
            && !detaching.is_done(Duration::ZERO)
        {
            served.closing.insert(id, detaching);
        }
        let closed = !served.closing.contains_key(&id);
        if served.devices.is_empty() && served.closing.is_empty() && !served.is_alive() {
            self.guests.remove(&id.domid);
        }
        closed
    }

    /// Leaves a window of the guest's that has no device here to another backend.
    pub(crate) fn release(&self, domid: DomId, window: RangeInclusive<u64>) {
        if let Some(served) = self.guests.get(&domid)
            && let Err(error) = served.guest.release(window)
        {
            warn!(domid, error = %chain(&error), "the registers of a device of another type can't be left to its backend: `xl destroy` and `xl create` the guest");
        }
    }

    /// `@releaseDomain` names no domain, so every guest is asked.
    pub(crate) fn release_dead(&mut self) {
        self.guests.retain(|domid, served| {
            let alive = served.is_alive();
            if !alive {
                info!(domid, "the guest has ended");
            }
            alive
        });
    }
}
