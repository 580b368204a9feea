//! Domain identifiers.

/// A domain's number (`domid_t` of `xen/include/public/xen.h`).
pub type DomId = u16;
