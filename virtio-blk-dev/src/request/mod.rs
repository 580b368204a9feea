//! Requests as the driver states them, and what of them may be carried out.

mod header;
mod ranges;

pub use header::RequestKind;
pub(crate) use header::{Action, Header, Status, decide, lifetime_bytes, used_len};
pub(crate) use ranges::{Range, RangeKind, Segment};
