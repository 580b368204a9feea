//! A device as the toolstack describes it in xenstore.

mod device;
mod errors;
mod id;
pub(crate) mod listing;
mod reader;
mod sharing;

pub use device::DeviceNode;
pub(crate) use device::read_window;
pub(crate) use errors::{ErrorNodes, remove};
pub use id::{DeviceId, DeviceType, Kind};
pub use reader::{NodeError, NodeReader};
pub use sharing::Sharing;
