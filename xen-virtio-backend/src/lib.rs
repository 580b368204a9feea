//! The library that a virtio backend on Xen stands on.
//!
//! An author writes a [`Backend`]: which devices of xenstore it serves, how one is opened, and what it does. The rest
//! is here: the toolstack's handshake in xenstore ([`Handshake`]), the threads that serve guests ([`guest`]), their
//! traps, windows and memory, and the process around it ([`daemon`]). All of it runs over a [`Host`]: Xen, or the fakes
//! of the `xen-*` crates. With the feature `test-utils`, `fake` has a toolstack and guests to test a backend with.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod amount;
mod backend;
pub mod daemon;
#[cfg(feature = "test-utils")]
pub mod fake;
pub mod guest;
mod handshake;
mod host;
mod inline;
pub mod node;
mod notices;

pub use amount::amount;
pub use backend::{Backend, Built, Device, Parts, Refusal};
pub use daemon::{main, run};
pub use handshake::{Handshake, HandshakeError};
pub use host::{Handles, Host, InterruptLine, Xen};
pub use inline::{Inline, InlineDevices, InlineService};
pub use notices::Notices;
