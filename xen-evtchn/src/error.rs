//! The inner errors of `io::Error`s that carry more than an errno.

use std::io;
use std::path::PathBuf;

use crate::DomId;

/// The inner error of the `io::Error`s that name what failed. Its kind is the kernel's; the kernel's own
/// error is the `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The device node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A remote port could not be bound.
    #[error("cannot bind event channel {remote_port} of domain {remote_domain}")]
    Bind {
        /// The domain that offers the port.
        remote_domain: DomId,
        /// The port in that domain.
        remote_port: u32,
        /// Why.
        source: io::Error,
    },
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let (Error::Open { source, .. } | Error::Bind { source, .. }) = &error;
        io::Error::new(source.kind(), error)
    }
}
