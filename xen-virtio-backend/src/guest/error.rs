//! Why a guest, or one of its devices, can't be served.

use std::io;

use backend_process::limits;
use xen_ioreq::DomId;

use crate::{backend::Refusal, node::DeviceId};

/// Why a device can't be attached to a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The kernel's devices can't be opened for it.
    #[error(
        "domain {domid}: can't open /dev/xen/privcmd, evtchn or gntdev for it: {}",
        advice(source, "load the modules xen-privcmd, xen-evtchn and xen-gntdev")
    )]
    Open {
        /// The guest.
        domid: DomId,
        /// What the kernel said.
        source: io::Error,
    },
    /// The IOREQ server can't be made or told of the window.
    #[error(transparent)]
    Ioreq(#[from] xen_ioreq::Error),
    /// The device itself can't be made.
    #[error("{id}")]
    Device {
        /// The device.
        id: DeviceId,
        /// What is wrong, and where.
        source: Refusal,
    },
    /// The guest's thread doesn't answer.
    #[error(
        "domain {domid}: the thread that serves it did not answer within {seconds} s, as the storage of one \
         of its devices does not: check the storage of its images"
    )]
    Stuck {
        /// The guest.
        domid: DomId,
        /// How long it was waited for.
        seconds: u64,
    },
    /// No thread can be made for the guest, or no descriptor to wake it by.
    #[error(
        "domain {domid}: can't start the thread that serves it: {}",
        advice(
            source,
            "raise the limit of threads (TasksMax= of the backend's systemd unit, or `ulimit -u`)"
        )
    )]
    Thread {
        /// The guest.
        domid: DomId,
        /// What the kernel said.
        source: io::Error,
    },
    /// What served an earlier guest of the same number has not let go of it yet.
    #[error(
        "domain {domid}: an earlier guest with this number is not closed yet, as the storage of one of its devices \
         does not answer: check the storage of its images, then create the guest again"
    )]
    Ending {
        /// The guest.
        domid: DomId,
    },
    /// The guest's thread has ended before the guest.
    #[error(
        "domain {domid}: the thread that serves it has ended: the log says why; `xl destroy` and `xl create` the guest"
    )]
    Ended {
        /// The guest.
        domid: DomId,
    },
}

/// What to do about an error of the kernel's: what its limit asks for, or otherwise this.
fn advice(source: &io::Error, otherwise: &str) -> String {
    limits::advice(source).unwrap_or_else(|| otherwise.to_owned())
}
