//! Requests as the driver states them (virtio 1.2 §5.2.6), and the checks that they must pass.

mod action;
mod blk_request;
mod header;
mod kind;
mod lifetime;
mod range;
mod segment;
mod status;
mod used_len;

pub(crate) use action::{Action, OtherAction, decide};
pub(crate) use blk_request::BlkRequest;
pub(crate) use header::Header;
pub(crate) use kind::RangeKind;
pub use kind::RequestKind;
pub(crate) use lifetime::lifetime_bytes;
pub(crate) use range::Range;
pub(crate) use status::Status;
pub(crate) use used_len::used_len;
