//! The hypervisor: the guests that there are.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use xen_evtchn::fake::FakeEvtchn;
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable};
use xen_ioreq::{
    DomId,
    fake::{FakeDeviceModel, FakeDomain},
};

use crate::{
    host::{Handles, Host, loopback},
    node::Sharing,
};

/// The [`Host`] of a backend under test: the fake guests that there are. Clones have the same guests.
#[derive(Clone, Debug, Default)]
pub struct FakeXen(Arc<Mutex<BTreeMap<DomId, FakeDomain>>>);

impl FakeXen {
    fn domains(&self) -> MutexGuard<'_, BTreeMap<DomId, FakeDomain>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A guest comes, in the place of one with the same number.
    pub fn add(&self, domain: FakeDomain) {
        self.domains().insert(domain.domid(), domain);
    }

    /// A guest's number means nothing any more.
    pub fn remove(&self, domid: DomId) -> Option<FakeDomain> {
        self.domains().remove(&domid)
    }

    fn opened(&self, domid: DomId) -> io::Result<FakeDomain> {
        // The kernel opens its devices for any number; only their use finds nobody there.
        Ok(self.domain(domid).ok_or(io::ErrorKind::NotFound)?)
    }

    /// The guest with this number.
    pub fn domain(&self, domid: DomId) -> Option<FakeDomain> {
        self.domains().get(&domid).cloned()
    }
}

impl Host for FakeXen {
    type Model = FakeDeviceModel;
    type Memory = FakeForeignMemory;
    type Grants = FakeGrantTable;
    type Events = FakeEvtchn;

    fn model(&self, domid: DomId) -> io::Result<Arc<FakeDeviceModel>> {
        Ok(self.opened(domid)?.device_model())
    }

    fn open(&self, domid: DomId, sharing: Sharing) -> io::Result<Handles<Self>> {
        let domain = self.opened(domid)?;
        let events = domain.event_channel()?;
        Ok(Handles {
            bell: loopback(&events),
            model: domain.device_model(),
            memory: domain.foreign_memory(),
            grants: (sharing == Sharing::Grant).then(|| domain.grant_table()),
            events,
        })
    }
}
