//! What the process of a guest is told before anything else.

use std::fmt;

use serde::{Deserialize, Serialize};
use xen_ioreq::{DomId, ServerId};

use crate::{guest::GuestOptions, node::Sharing};

/// Whom a process serves: the devices of one guest that share its memory in one way. A process for grants can't map
/// what the guest has not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GuestKey {
    /// The guest.
    pub domid: DomId,
    /// How its devices reach the guest's memory.
    pub sharing: Sharing,
}

impl fmt::Display for GuestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.domid, self.sharing)
    }
}

/// What the process of a guest is told before anything else.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start<S> {
    /// Whom it serves.
    pub(crate) key: GuestKey,
    /// How the guest is served.
    pub(crate) options: GuestOptions,
    /// Its IOREQ server, which the supervisor has made. If it is that of a process of the guest that was killed, it answers
    /// the windows of that one as those of no device.
    pub(crate) server: ServerId,
    /// How it is confined; `None` in tests and where the operator wants it so.
    pub(crate) confinement: Option<Confinement>,
    /// What its backend needs to know.
    pub(crate) setup: S,
}

/// How the process of a guest is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confinement {
    /// User and group; those of the supervisor if there are none to be had.
    pub(crate) ids: Option<(u32, u32)>,
    /// Most open files.
    pub(crate) open_files: u64,
    /// Most threads of that user; `None` if it isn't the process's own.
    pub(crate) threads: Option<u64>,
}
