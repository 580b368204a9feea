//! Where the devices of guests are on their PCI buses, whichever backend serves them.

use std::collections::BTreeMap;

use xen_ioreq::DomId;

use crate::{
    node::DeviceId,
    pci::{Slot, Slots},
};

/// The places of all devices that xenstore has, by guest.
#[derive(Default)]
pub(super) struct Places(BTreeMap<DomId, BTreeMap<DeviceId, Slot>>);

impl Places {
    /// A device is in this place, or in none. Whether that is new.
    pub(super) fn set(&mut self, id: DeviceId, slot: Option<Slot>) -> bool {
        let its = self.0.entry(id.domid).or_default();
        let before = match slot {
            Some(slot) => its.insert(id, slot),
            None => its.remove(&id),
        };
        if its.is_empty() {
            self.0.remove(&id.domid);
        }
        before != slot
    }

    /// Those of a guest's devices.
    pub(super) fn of(&self, domid: DomId) -> Slots {
        self.0.get(&domid).into_iter().flat_map(BTreeMap::values).copied().collect()
    }
}
