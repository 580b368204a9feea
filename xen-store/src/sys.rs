//! The wire format (`xen/include/public/io/xs_wire.h`).

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `XS_ERROR`: the reply that refuses a request.
pub(crate) const ERROR: u32 = 16;

/// `struct xsd_sockmsg`, before every message. Xen is little-endian wherever it runs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) msg_type: U32,
    /// Chosen by the client, and echoed in the reply.
    pub(crate) req_id: U32,
    pub(crate) tx_id: U32,
    /// Of the payload that follows.
    pub(crate) len: U32,
}
