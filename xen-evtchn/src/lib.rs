//! Xen event channels from userspace, over `/dev/xen/evtchn`.
//!
//! An event channel is a one-bit notification between two domains. [`EventChannel`] is one open descriptor of
//! the device and the ports bound through it; [`Evtchn`] is the kernel's, and `fake::FakeEvtchn` (feature
//! `test-utils`) one in memory, as strict as the kernel. [`Port`] is a bound port that unbinds itself.
//!
//! The descriptor is pollable. A pending port is masked when it is read and stays so until it is unmasked, so
//! the loop is: poll, [`pending`](EventChannel::pending), serve, [`unmask`](EventChannel::unmask). A thread that waits
//! for nothing else spares the poll by [`wait`](EventChannel::wait); others end its sleep by a [`Loopback`].
//!
//! ```
//! # #[cfg(feature = "test-utils")]
//! # fn main() -> std::io::Result<()> {
//! use std::sync::Arc;
//! use xen_evtchn::fake::FakeHub;
//! use xen_evtchn::{EventChannel, Port};
//!
//! let hub = FakeHub::new();
//! let guest_port = hub.alloc_unbound(1); // the guest, domain 1, offers a port
//!
//! let channel = Arc::new(hub.open()?); // in production: Evtchn::open()?
//! let port = Port::bind_interdomain(&channel, 1, guest_port)?;
//!
//! let mut pending = [0; 16];
//! let n = channel.pending(&mut pending)?; // a fresh port is pending
//! assert_eq!(pending[..n], [port.number()]);
//! channel.unmask(&pending[..n])?;
//!
//! port.notify()?;
//! assert!(hub.take_notified(1, guest_port));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "test-utils"))]
//! # fn main() {}
//! ```
//!
//! # Threat model
//!
//! | Who | Can | Cannot, and why |
//! |---|---|---|
//! | The guest at the remote end | raise its event at any rate; close or re-offer its port | flood: a port is masked from its report until the unmask, so one guest costs at most one report per turn of the loop |
//! | The guest at the remote end | make an event spurious | say anything by it: an event carries no data, what it announces is read and checked elsewhere |
//! | A compromised device model | use the ports it has bound | bind ports of other domains, after [`restrict`](EventChannel::restrict) |
//! | The kernel and Xen | everything | they are trusted |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod channel;
mod error;
mod evtchn;
mod loopback;
mod port;
mod readable;
mod sys;

#[cfg(any(test, feature = "test-utils"))]
pub mod fake;

pub use channel::{DomId, EventChannel};
pub use error::Error;
pub use evtchn::Evtchn;
pub use loopback::Loopback;
pub use port::Port;
