//! Why a device is not served.

use std::io;

use backend_process::limits;

use xen_ioreq::DomId;

use crate::{guest::GuestError, launch::LaunchError, refusal::Refusal};

/// Why a device is not served. The text is written to the device's error nodes.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(
        "{device} did not open within {seconds} s: check that its storage answers, then create the guest again"
    )]
    Slow { device: String, seconds: u64 },
    #[error(
        "no thread can be started to open the device: raise the limit of tasks (TasksMax= of the systemd unit, `ulimit -u`)"
    )]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(
        "domain {domid}: no thread can be started to talk with its process: raise the limit of tasks (TasksMax= of the systemd unit, `ulimit -u`)"
    )]
    Link { domid: DomId, source: io::Error },
    /// In the words of the guest's process.
    #[error("{0}")]
    NotAttached(String),
    #[error(
        "domain {domid}: the process that serves it did not answer within {seconds} s: `xl destroy` and `xl create` the guest"
    )]
    Stuck { domid: DomId, seconds: u64 },
    #[error(
        "domain {domid}: what served an earlier guest with this number is not closed yet, as the storage of one of its \
         devices does not answer: check the storage of its images, then create the guest again"
    )]
    Ending { domid: DomId },
    #[error(
        "domain {domid}: the process that was started in the place of one that had ended has ended within {seconds} s, \
         too"
    )]
    Replaced { domid: DomId, seconds: u64 },
    #[error("domain {domid}: {}", ended(.reason))]
    Ended { domid: DomId, reason: String },
}

/// Said of devices whose guest's process has ended before the guest.
pub(super) fn ended(reason: &str) -> String {
    format!(
        "the process that served the guest has ended before it, and its devices are closed: {reason}; see the log of \
         the backend, then `xl destroy` and `xl create` the guest"
    )
}

impl AttachError {
    /// What to do about it, where that depends on what the kernel said and isn't in its text.
    pub(super) fn advice(&self) -> Option<String> {
        match self {
            Self::Refused(Refusal::Other(error)) => limits::advice(error.as_ref()),
            Self::Launch(error) => limits::advice(error),
            Self::Guest(error) => limits::advice(error),
            Self::Link { source, .. } => Some(limits::advice(source).unwrap_or_else(|| {
                "raise the limit of tasks (TasksMax= of the systemd unit, `ulimit -u`)".to_owned()
            })),
            _ => None,
        }
    }
}
