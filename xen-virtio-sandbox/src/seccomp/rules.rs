use super::refused::OnRefusal;
use crate::Access;

/// What of the filters isn't the same for every process.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) access: Access,
    /// System calls and ioctls that this kind of device needs beside the usual.
    pub(crate) calls: Vec<libc::c_long>,
    pub(crate) ioctls: Vec<u32>,
    pub(crate) on_refusal: OnRefusal,
}
