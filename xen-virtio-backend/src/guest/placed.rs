//! The devices of a guest, and where their registers are.

use std::{collections::BTreeMap, mem, ops::RangeInclusive};

use crate::{
    backend::Device,
    node::{DeviceId, DeviceNode},
    pci::{Slot, Target, in_window, target},
    register_address::RegisterAddress,
};

/// A device, and what the toolstack says of it.
pub(super) struct Placed<D, C> {
    pub(super) node: DeviceNode,
    pub(super) config: C,
    pub(super) device: D,
    /// Where its registers are on the guest's bus, as long as the guest has them answer there.
    bar: Option<RangeInclusive<u64>>,
}

impl<D: Device, C> Placed<D, C> {
    /// A device that is on no bus yet.
    pub(super) fn new(node: DeviceNode, config: C, device: D) -> Self {
        Self { node, config, device, bar: None }
    }

    /// After a write to its configuration space: where its registers were and where they are, if that has changed.
    pub(super) fn moved(&mut self) -> Option<Moved> {
        let now = self.device.bar().and_then(in_window);
        let from = mem::replace(&mut self.bar, now.clone());
        (from != now).then_some(Moved { from, to: now })
    }

    /// Which of its registers an access from `first` to `last` is.
    fn register(&self, first: u64, last: u64) -> Option<RegisterAddress> {
        let within = |range: &RangeInclusive<u64>| range.contains(&first) && range.contains(&last);
        if let Some(bar) = self.bar.as_ref().filter(|bar| within(bar)) {
            return Some(RegisterAddress::PciBar(first - bar.start()));
        }
        let window = self.node.window();
        within(&window).then(|| RegisterAddress::Mmio(first - window.start()))
    }
}

/// The registers of a device are elsewhere on the bus, as its driver wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) from: Option<RangeInclusive<u64>>,
    pub(super) to: Option<RangeInclusive<u64>>,
}

/// Of which device the guest accesses `size` bytes at `addr`, and which of its registers these are.
pub(super) fn find<D: Device, C>(
    devices: &BTreeMap<DeviceId, Placed<D, C>>,
    addr: u64,
    size: u8,
) -> Option<(DeviceId, RegisterAddress)> {
    let last = addr.checked_add(u64::from(size).checked_sub(1)?)?;
    let here = |(id, placed): (&DeviceId, &Placed<D, C>)| Some((*id, placed.register(addr, last)?));
    devices.iter().find_map(here).or_else(|| match target(addr, size)? {
        Target::Config(slot, offset) => {
            let is_in = |placed: &Placed<D, C>| Slot::of_window(placed.node.base) == Some(slot);
            let (id, _) = devices.iter().find(|(_, placed)| is_in(placed))?;
            Some((*id, RegisterAddress::PciConfig(offset)))
        }
        Target::Frame(_) | Target::Nothing => None,
    })
}
