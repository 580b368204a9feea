//! The guest's PCI bus, as one process of the guest has its part in it.

use std::sync::Arc;

use xen_evtchn::EventChannel;
use xen_foreignmem::ForeignMemory;
use xen_ioreq::{DomId, Error, IoreqServer, eventfd::EventFds};

use super::claim::claim;
use crate::{
    node::DeviceNode,
    pci::{Change, Claims, FRAME, Slot, Slots, SpiLines},
};

/// The guest's PCI bus.
pub(super) struct Bus<M: EventFds> {
    claims: Claims,
    lines: SpiLines<M>,
    /// The guest's accesses to the frame come here, and those to the places that are claimed.
    is_claimed: bool,
}

impl<M: EventFds> Bus<M> {
    pub(super) fn new(domid: DomId, model: Arc<M>) -> Self {
        let (claims, lines) = (Claims::default(), SpiLines::new(domid, model));
        Self { claims, lines, is_claimed: false }
    }

    /// What a device on it raises its interrupts by; `None` for one that has no place there.
    pub(super) fn lines_for(&self, node: &DeviceNode) -> Option<SpiLines<M>> {
        Slot::of_window(node.base).map(|_| self.lines.clone())
    }

    /// The guest writes to the frame itself.
    pub(super) fn raise(&self, spi: u32) {
        self.lines.raise(spi);
    }

    /// Whether the guest may use it by now.
    pub(super) fn is_claimed(&self) -> bool {
        self.is_claimed
    }

    /// Devices are in these places, whichever process serves them.
    pub(super) fn set_places(&mut self, places: Slots) {
        self.claims.set_taken(places);
    }

    /// Has the guest's accesses sent to `server`, as far as they are for this process, which has devices in the places
    /// `own`.
    pub(super) fn claim<F: ForeignMemory, E: EventChannel>(
        &mut self,
        server: &mut IoreqServer<M, F, E>,
        own: Slots,
    ) -> Result<(), Error> {
        if !self.is_claimed {
            claim(server, FRAME)?;
            self.is_claimed = true;
        }
        for change in self.claims.changes(own) {
            match change {
                Change::Claim(slot) => claim(server, slot.config())?,
                Change::Leave(slot) => server.unmap_range(slot.config())?,
            }
            self.claims.done(change);
        }
        Ok(())
    }
}
