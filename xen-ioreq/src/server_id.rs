//! Identifiers of IOREQ servers.

/// An IOREQ server's number in its guest (`ioservid_t`).
pub type ServerId = u16;
