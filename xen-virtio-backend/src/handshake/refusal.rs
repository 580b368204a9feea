//! Why a device is not served.

use std::io;

use backend_process::limits;

use crate::{backend::Refusal, guest::GuestError};

/// Why a device is not served. The text is written to the device's error nodes.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    #[error(
        "{program} was told to stop and refuses new devices: start it again when the {guests} guests that it \
         serves have ended, then create this guest again"
    )]
    Stopping { program: &'static str, guests: usize },
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
}

impl AttachError {
    /// What to do about it, where that depends on what the kernel said and isn't in its text.
    pub(super) fn advice(&self) -> Option<String> {
        match self {
            Self::Refused(Refusal::Other(error)) => limits::advice(error.as_ref()),
            Self::Guest(GuestError::Ioreq(error)) => limits::advice(error),
            _ => None,
        }
    }
}
