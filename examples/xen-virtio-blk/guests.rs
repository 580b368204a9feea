//! The guests that are served, and which devices of theirs.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use tracing::{info, warn};
use xen_ioreq::{DomId, Liveness};

use crate::{
    attach::PATIENCE,
    device_id::DeviceId,
    guest::{Guest, GuestError},
    platform::Platform,
};

/// Every guest that has a device here. A guest is taken on for its first device.
pub(crate) struct Guests<P: Platform> {
    platform: P,
    guests: BTreeMap<DomId, Served<P>>,
}

struct Served<P: Platform> {
    guest: Guest,
    devices: BTreeSet<DeviceId>,
    /// Tells whether the guest still lives.
    liveness: Liveness<P::Model>,
}

impl<P: Platform> Guests<P> {
    pub(crate) fn new(platform: P) -> Self {
        Self { platform, guests: BTreeMap::new() }
    }

    /// Each guest, to be told something.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Guest> {
        self.guests.values().map(|served| &served.guest)
    }

    /// Every device that is served.
    pub(crate) fn devices(&self) -> Vec<DeviceId> {
        self.guests.values().flat_map(|served| served.devices.iter().copied()).collect()
    }

    pub(crate) fn contains(&self, id: DeviceId) -> bool {
        self.guests.get(&id.domid).is_some_and(|served| served.devices.contains(&id))
    }

    /// Does something for a device with its guest, which is taken on for its first device.
    pub(crate) fn attach<T>(
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
                let (guest, liveness) = Guest::start(id.domid, handles, PATIENCE)?;
                place.insert(Served { guest, devices: BTreeSet::new(), liveness })
            }
        };
        let attached = attach(&served.guest);
        if attached.is_ok() {
            served.devices.insert(id);
        } else if served.devices.is_empty() {
            self.guests.remove(&id.domid);
        }
        attached
    }

    /// False if the disk's storage keeps it from being closed.
    pub(crate) fn detach(&mut self, id: DeviceId, reason: &str) -> bool {
        let Some(served) = self.guests.get_mut(&id.domid) else { return true };
        let mut closed = true;
        if served.devices.remove(&id) {
            info!(%id, reason, "letting go");
            if let Err(error) = served.guest.detach(id) {
                warn!(%id, %error, "not closed yet");
                closed = false;
            }
        }
        if served.devices.is_empty() {
            self.guests.remove(&id.domid);
        }
        closed
    }

    /// `@releaseDomain` names no domain, so every guest is asked.
    pub(crate) fn release_dead(&mut self) {
        self.guests.retain(|domid, served| {
            // What could not be asked says nothing of the guest.
            let alive = !matches!(served.liveness.is_alive(), Ok(false));
            if !alive {
                info!(domid, "the guest is gone");
            }
            alive
        });
    }
}
