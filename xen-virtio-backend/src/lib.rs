//! The library that a virtio backend on Xen stands on.
//!
//! An author writes a [`Backend`]: which devices of xenstore it serves, how one is opened, and what it does. The rest
//! is here: the toolstack's handshake in xenstore ([`Handshake`]), the process of each guest and how it is started
//! ([`launch`]), its traps, windows and memory, and the supervisor around it ([`daemon`]). All of it runs over a
//! [`Host`]: Xen, or the fakes of the `xen-*` crates. With the feature `test-utils`, `fake` has a toolstack and guests
//! to test a backend with.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod amount;
mod backend;
mod close;
pub mod control;
pub mod daemon;
#[cfg(feature = "test-utils")]
pub mod fake;
mod figures;
mod grant_copies;
mod guest;
mod handshake;
mod host;
mod inline;
pub mod launch;
pub mod node;
mod notices;
pub mod pci;
mod process;
mod refusal;
mod register_address;
mod transport;
mod transport_kind;

pub use amount::amount;
pub use backend::{Backend, Device, Opened, Parts};
pub use daemon::{main, run};
pub use figures::Figures;
pub use grant_copies::GrantCopies;
pub use guest::{GuestOptions, MapBudget};
pub use handshake::{Handshake, HandshakeError};
pub use host::{DeviceMemory, Handles, Host, InterruptLine, Xen};
pub use inline::{Inline, InlineDevices, InlineService};
pub use launch::guest_process;
pub use notices::Notices;
pub use process::GuestKey;
pub use refusal::Refusal;
pub use register_address::RegisterAddress;
pub use transport::{DeviceTransport, TransportBuilder};
pub use transport_kind::{TransportKind, Transports};
pub use xen_virtio_sandbox::{ThreadFilters, ThreadKind};
