//! Why the process of a guest can't be started.

use std::io;

use crate::process::GuestKey;

/// Why the process of a guest can't be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Another one serves it.
    #[error(
        "domain {} is served by another process already ({}), which an earlier {program} has started: it ends with the \
         guest", .key.domid, .pid.map_or("of unknown number".to_owned(), |pid| pid.to_string())
    )]
    Busy {
        /// The program's name.
        program: &'static str,
        /// The guest.
        key: GuestKey,
        /// The process.
        pid: Option<u32>,
    },
    /// There is no user for it.
    #[error(transparent)]
    Account(#[from] xen_virtio_sandbox::AccountError),
    /// What it needs to know can't be written down.
    #[error("the start message of the guest's process can't be written: report this as a bug")]
    Start(#[source] postcard::Error),
    /// A step failed.
    #[error("{step}")]
    System {
        /// Which.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl LaunchError {
    pub(super) fn system<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::System { step, source: error.into() }
    }
}
