//! The guests that are served.

use std::collections::BTreeMap;

use tracing::info;
use xen_ioreq::{DomId, Liveness};

use crate::{
    backend::Backend,
    guest::{EventSender, Guest, GuestError, MapBudget},
    host::Host,
};

/// Every guest that has, or had, a device here. A guest is taken on for its first device and stays until its domain
/// ends, even when its devices are closed before: an access to their windows that nobody answers would be an
/// external abort in the guest.
pub(super) struct Guests<H: Host, B: Backend> {
    host: H,
    /// For each guest.
    budget: MapBudget,
    events: EventSender<B>,
    guests: BTreeMap<DomId, State<H, B>>,
}

enum State<H: Host, B: Backend> {
    Served {
        guest: Guest<B>,
        liveness: Liveness<H::Model>,
    },
    /// Its thread was told to end, and has not yet.
    Ending,
}

impl<H: Host, B: Backend> Guests<H, B> {
    /// What guests have to tell goes to `events`.
    pub(super) fn new(host: H, budget: MapBudget, events: EventSender<B>) -> Self {
        Self { host, budget, events, guests: BTreeMap::new() }
    }

    /// Each that is served.
    pub(super) fn iter(&self) -> impl Iterator<Item = (DomId, &Guest<B>)> {
        self.guests.iter().filter_map(|(domid, state)| match state {
            State::Served { guest, .. } => Some((*domid, guest)),
            State::Ending => None,
        })
    }

    /// A guest that is served.
    pub(super) fn get(&self, domid: DomId) -> Option<&Guest<B>> {
        match self.guests.get(&domid)? {
            State::Served { guest, .. } => Some(guest),
            State::Ending => None,
        }
    }

    /// Whether there are guests that are told to end and have not yet.
    pub(super) fn are_ending(&self) -> bool {
        self.guests.values().any(|state| matches!(state, State::Ending))
    }

    /// A guest, which is taken on if it isn't served yet.
    pub(super) fn take_on(&mut self, domid: DomId) -> Result<&Guest<B>, GuestError> {
        if !self.guests.contains_key(&domid) {
            let opened = self.host.open(domid);
            let handles = opened.map_err(|source| GuestError::Open { domid, source })?;
            let started = Guest::start(domid, handles, self.budget, self.events.clone())?;
            let (guest, liveness) = started;
            self.guests.insert(domid, State::Served { guest, liveness });
        }
        self.get(domid).ok_or(GuestError::Ending { domid })
    }

    /// Whether a guest is served and lives. What could not be asked says nothing of the guest.
    pub(super) fn is_alive(&self, domid: DomId) -> bool {
        match self.guests.get(&domid) {
            Some(State::Served { liveness, .. }) => !matches!(liveness.is_alive(), Ok(false)),
            _ => false,
        }
    }

    /// Has those end whose domains have ended; which they are. `@releaseDomain` names no domain, so every guest is
    /// asked.
    pub(super) fn release_dead(&mut self) -> Vec<DomId> {
        let served = self.iter().map(|(domid, _)| domid);
        let dead: Vec<_> = served.filter(|domid| !self.is_alive(*domid)).collect();
        for &domid in &dead {
            info!(domid, "the guest has ended");
            self.guests.insert(domid, State::Ending);
        }
        dead
    }

    /// The thread of a guest has ended. True if nobody had told it to.
    pub(super) fn ended(&mut self, domid: DomId) -> bool {
        matches!(self.guests.remove(&domid), Some(State::Served { .. }))
    }

    /// Has all end.
    pub(super) fn end(&mut self) {
        self.guests.values_mut().for_each(|state| *state = State::Ending);
    }
}
