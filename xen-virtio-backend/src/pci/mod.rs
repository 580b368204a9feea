//! The PCI bus on which a guest may have its devices: where it is, what is on it, and what the guest is told of it. Xen
//! forwards the accesses to it like those to virtio-mmio windows.

mod bus;
mod claims;
mod device_tree;
pub(crate) mod frame;
mod layout;
mod lines;
mod slot;

pub(crate) use bus::{Target, in_window, target};
pub(crate) use claims::{Change, Claims};
pub use device_tree::{DeviceTree, NoSpis};
#[cfg(feature = "test-utils")]
pub(crate) use layout::ECAM;
pub(crate) use layout::FRAME;
pub(crate) use lines::SpiLines;
pub(crate) use slot::{Slot, Slots};
