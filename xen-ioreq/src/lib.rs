//! Xen device-model operations and the IOREQ server.
//!
//! A guest's access to an emulated device's registers traps into Xen, which puts it as a request into a page shared with
//! an *IOREQ server* in another domain, raises the vCPU's event channel, and lets the vCPU wait for the answer.
//! [`IoreqServer`] is such a server: it forwards ranges of guest-physical addresses and hands out the requests, as
//! values that answer themselves. [`DeviceModel`] is the seam below it, one guest's device-model operations, with
//! [`XenDeviceModel`] as the real thing over `/dev/xen/privcmd`; it raises the guest's interrupts too.
//! [`eventfd`] moves interrupts and kicks into the kernel. The feature `test-utils` brings `fake::FakeDomain`, a guest
//! in memory whose vCPUs trap.
//!
//! Xen must be built with CONFIG_IOREQ_SERVER. Nothing here starts a thread, prints, or opens a device.
//!
//! # Example
//!
//! A device of one register, and a guest that reads it:
//!
//! ```
//! use xen_ioreq::fake::FakeDomain;
//! use xen_ioreq::{IoreqServer, RequestKind};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let guest = FakeDomain::default();
//! let mut server = IoreqServer::create(
//!     guest.device_model(),   // in production: XenDeviceModel::new(privcmd)
//!     guest.foreign_memory(), // Privcmd::open(domid)?, the same one
//!     guest.event_channel()?,  // Evtchn::open()?
//! )?;
//! server.map_range(0x200_0000..=0x200_01ff)?;
//! server.enable()?;
//!
//! let mut serve = || {
//!     // Until `None`; then poll `server.as_fd()`.
//!     while let Some(request) = server.next_request().unwrap() {
//!         match request.kind() {
//!             RequestKind::Read { addr: 0x200_0000, .. } => request.complete_read(0x7472_6976),
//!             // Whatever is not completed is answered all the same, reads with all ones.
//!             _ => drop(request),
//!         }
//!     }
//! };
//! assert_eq!(guest.vcpu(0).read_with(0x200_0000, 4, &mut serve)?, 0x7472_6976);
//! assert_eq!(guest.vcpu(0).read_with(0x200_0100, 4, &mut serve)?, 0xffff_ffff);
//! # Ok(())
//! # }
//! ```
//!
//! # Threat model
//!
//! | Who | Can | Cannot, and why |
//! |---|---|---|
//! | The guest | access the forwarded ranges at any rate, with any address, width and data | change a request that is being served: Xen writes the page, the guest can't, and each request is copied once, then checked |
//! | The guest | make one request a vCPU | queue more: memory is bounded by 128 slots, and no vCPU is served twice before the others of its batch |
//! | The guest | be destroyed at any moment | break the server: its mappings stay valid, and calls fail with ENOENT, or ESRCH once nothing of the guest is mapped; [`Liveness`] tells |
//! | A bug in a device's handler (early return, panic) | give a wrong answer | hang the vCPU: a request that is dropped is answered |
//! | A compromised backend | answer its guest's accesses wrongly, raise its interrupts | reach other guests, when its descriptors are restricted to one (`ForeignMemory::restrict`, `EventChannel::restrict`) |
//! | A backend that is killed at any moment | leave requests unanswered until the next one takes the server over | leave anything in dom0's kernel: [irqfds](eventfd::IrqFd) end with the process, and ioeventfds, which don't, are not used |
//! | Xen and dom0's kernel | everything | they are trusted |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod deferred;
mod device_model;
mod error;
pub mod eventfd;
#[cfg(feature = "test-utils")]
pub mod fake;
mod liveness;
mod page;
mod ports;
mod registration;
mod request;
mod request_kind;
mod server;
mod server_id;
mod stats;
mod sys;
mod xen_device_model;

pub use deferred::DeferredRequest;
pub use device_model::{DeviceModel, ServerInfo};
pub use error::{Error, Operation};
pub use liveness::Liveness;
pub use request::Request;
pub use request_kind::RequestKind;
pub use server::IoreqServer;
pub use server_id::ServerId;
pub use stats::Stats;
pub use xen_device_model::XenDeviceModel;
pub use xen_evtchn;
pub use xen_foreignmem::{self, DomId};
