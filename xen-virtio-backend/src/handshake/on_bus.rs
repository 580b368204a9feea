//! What the handshake has to do with guests' PCI buses.

use xen_ioreq::DomId;
use xen_store::Store;

use super::Handshake;
use crate::{
    backend::Backend,
    guest::Command,
    launch::Launch,
    node::{DeviceId, NodeReader, read_window},
    pci::Slot,
    transport_kind::TransportKind,
};

impl<S: Store, L: Launch, B: Backend> Handshake<S, L, B> {
    /// How the devices of a guest are reached.
    pub(super) fn transport_of(&mut self, domid: DomId) -> TransportKind {
        if self.transports.have(TransportKind::Pci) {
            self.look_up_name(domid);
        }
        let name = self.names.get(&domid).and_then(|guest| guest.name.as_deref());
        self.transports.of(name)
    }

    /// Looks where a device is, and tells the processes of its guest if that is news. Guests that have no bus are
    /// spared that.
    pub(super) fn look_at_place(&mut self, id: DeviceId) {
        if !self.transports.have(TransportKind::Pci) {
            return;
        }
        let path = id.path(&self.dir);
        // One without a window is in no place, as long as it has none.
        let window = read_window(&NodeReader::new(&self.store, None, id, &path)).ok();
        let slot = window.and_then(|window| Slot::of_window(*window.start()));
        if self.places.set(id, slot) {
            let command = self.tell_places(id.domid);
            self.guests.of(id.domid).for_each(|(_, guest)| guest.send(&command));
        }
    }

    /// What the processes of a guest are to know of its bus.
    pub(super) fn tell_places<C, R, O>(&self, domid: DomId) -> Command<C, R, O> {
        Command::Places(self.places.of(domid))
    }
}
