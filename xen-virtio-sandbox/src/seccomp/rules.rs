use super::refused::OnRefusal;
use crate::Access;

/// The configurable part of the filters.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) access: Access,
    /// Additional system calls and ioctls for this device.
    pub(crate) calls: Vec<libc::c_long>,
    pub(crate) ioctls: Vec<u32>,
    pub(crate) on_refusal: OnRefusal,
}
