//! What happens on the guest's PCI bus.

use backend_process::chain;
use tracing::debug;

use super::{PlacedOf, Service};
use crate::{
    backend::Backend,
    guest::{GuestError, claim::claim, placed::Moved},
    host::Host,
    pci::{Slot, Slots},
};

impl<H: Host, B: Backend> Service<H, B> {
    /// Has the guest's accesses to its bus sent here, as far as they are for this process: `window` is that of a device
    /// which is being attached.
    pub(super) fn claim_bus(&mut self, window: Option<u64>) -> Result<(), GuestError> {
        let Some(bus) = &mut self.bus else { return Ok(()) };
        let placed = self.devices.values().chain(self.stopping.values());
        let bases = placed.map(|placed: &PlacedOf<H, B>| placed.node.base);
        let bases = bases.chain(self.empty.iter().copied()).chain(window);
        let own: Slots = bases.filter_map(Slot::of_window).collect();
        Ok(bus.claim(&mut self.server, own)?)
    }

    /// Devices are in these places, whichever process serves them.
    pub(super) fn set_places(&mut self, places: Slots) {
        if let Some(bus) = &mut self.bus {
            bus.set_places(places);
        }
        self.reclaim_bus();
    }

    /// Claims and leaves what is to be, after a change, of a bus that the guest may use by now.
    pub(super) fn reclaim_bus(&mut self) {
        let is_claimed = self.bus.as_ref().is_some_and(|bus| bus.is_claimed());
        if is_claimed && let Err(error) = self.claim_bus(None) {
            debug!(domid = self.domid, error = %chain(&error), "a part of the guest's PCI bus can't be claimed or left");
        }
    }

    /// Has the guest's accesses to a device's registers sent here where they are now.
    pub(super) fn follow(&mut self, moved: Moved) {
        let Moved { from, to } = moved;
        // The driver may have put two devices in one place: the first one answers.
        let left = from.map_or(Ok(()), |from| self.server.unmap_range(from));
        let claimed = to.map_or(Ok(()), |to| claim(&mut self.server, to));
        if let Err(error) = left.and(claimed)
            && let Some(dropped) = self.limit.allow()
        {
            debug!(domid = self.domid, error = %chain(&error), dropped, "the guest's accesses to a device that it has moved on its bus don't reach the device, or are answered where it was");
        }
    }
}
