//! Why a guest, or one of its devices, can't be served.

use std::io;

use backend_process::{chain, limits};
use xen_ioreq::DomId;

use crate::{node::DeviceId, refusal::Refusal};

/// Why a guest, or a device of it, can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestError {
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
    /// There is no thread for what may block.
    #[error(
        "{id}: no thread can be started to open the device: raise the limit of tasks (TasksMax= of the systemd unit, `ulimit -u`)"
    )]
    Thread {
        /// The device.
        id: DeviceId,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not all files that a device needs came with it.
    #[error("{id}: the guest's process can't take the files of the device")]
    Files {
        /// The device.
        id: DeviceId,
        /// Why.
        source: io::Error,
    },
}

impl GuestError {
    /// What is wrong, and what to do about it.
    pub(super) fn text(&self) -> String {
        let text = chain(self).to_string();
        let advice = match self {
            Self::Ioreq(error) => limits::advice(error),
            Self::Device { source: Refusal::Other(error), .. } => limits::advice(error.as_ref()),
            _ => None,
        };
        match advice {
            Some(advice) => format!("{text}: {advice}"),
            None => text,
        }
    }
}

/// What to do about an error of the kernel's: what its limit asks for, or otherwise this.
fn advice(source: &io::Error, otherwise: &str) -> String {
    limits::advice(source).unwrap_or_else(|| otherwise.to_owned())
}
