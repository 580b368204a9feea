//! Xen device-model operations and the IOREQ server.

mod device_model;
mod error;
pub mod eventfd;
#[cfg(feature = "test-utils")]
pub mod fake;
mod page;
mod request;
mod server;
mod sys;

pub use device_model::{DeviceModel, ServerInfo, XenDeviceModel};
pub use error::{Error, Operation};
pub use request::{Request, RequestKind};
pub use server::{IoreqServer, Stats};
pub use xen_evtchn;
pub use xen_foreignmem;

/// A Xen domain identifier (`domid_t`).
pub type DomId = u16;

/// An IOREQ server's number in its guest (`ioservid_t`).
pub type ServerId = u16;
