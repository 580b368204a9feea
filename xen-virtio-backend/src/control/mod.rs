//! The control socket: by it an operator asks a supervisor that runs what there is, and has devices do something.
//!
//! It is `control` in the run directory, and for the superuser only. [`Client`] is the operator's side. Both sides are
//! of one program and one version: what crosses the socket is no interface for others.

mod client;
mod message;
mod server;
mod status;

pub use client::{Client, ClientError};
#[cfg(feature = "test-utils")]
pub(crate) use message::Reply;
pub(crate) use message::Request;
pub(crate) use server::{Asked, Replies, Server};
pub use status::{DeviceState, DeviceStatus, DeviceStatusOf, GuestName, Status, StatusOf};
