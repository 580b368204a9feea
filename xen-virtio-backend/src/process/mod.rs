//! The process of a guest, and the way by which supervisors talk with it.
//!
//! Each guest is served by a process of its own, which is confined: it can reach that guest's memory and what was opened
//! for the guest's devices. The supervisor starts it, and sends it devices with what it has opened for them. A
//! supervisor may end: the process goes on, and the next supervisor connects to its socket.

mod conversation;
mod line;
mod packet_rate;
mod run;
mod socket;
mod start;
mod wait;

use crate::backend::Backend;

pub(crate) use line::{Line, LineError, Parcel};
pub(crate) use run::serve;
pub(crate) use socket::{connect_to, listen_at};
pub use start::GuestKey;
pub(crate) use start::{Confinement, Start};
pub(crate) use wait::{await_flushed, await_message};

/// What a process and its supervisor must have in common.
pub(crate) fn version<B: Backend>() -> String {
    format!("{} {} of xen-virtio-backend {}", B::NAME, B::VERSION, env!("CARGO_PKG_VERSION"))
}
