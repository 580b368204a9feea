//! What can go wrong.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::Op;

/// A failed xenstore operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No xenstore could be reached.
    #[error("no xenstore here:{}", Tried(tried))]
    Unavailable {
        /// Every way that was tried, and why it failed.
        tried: Vec<(PathBuf, io::Error)>,
    },
    /// The connection failed: the daemon died, did not answer in time, or could not be written to.
    #[error("cannot {op}{}", Target(path))]
    Io {
        /// What was asked.
        op: Op,
        /// The node, as it was given; empty where there is none.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The daemon refused the request. The connection can still be used.
    #[error("cannot {op}{}: {errno}", Target(path))]
    Refused {
        /// What was asked.
        op: Op,
        /// The node, as it was given; empty where there is none.
        path: String,
        /// The daemon's error by name: `ENOENT`, `EACCES`, `EINVAL`, `EAGAIN`, `EEXIST`, … (`xsd_errors` in
        /// `xen/include/public/io/xs_wire.h`; oxenstored knows a few more, such as `EQUOTA`).
        errno: String,
    },
    /// The daemon's reply is not valid. The connection can't be used any more, and every later call fails.
    #[error("cannot {op}{}: xenstored violated the protocol: {what}", Target(path))]
    Protocol {
        /// What was asked.
        op: Op,
        /// The node, as it was given; empty where there is none.
        path: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// A value that should be text is not UTF-8.
    #[error("the value of {path} is not UTF-8")]
    NotText {
        /// The node.
        path: String,
        /// Where it stops being UTF-8.
        source: std::str::Utf8Error,
    },
    /// A value that should be a number is none.
    #[error("the value of {path} is not a number")]
    NotNumber {
        /// The node.
        path: String,
        /// What is wrong with it.
        source: std::num::ParseIntError,
    },
}

impl Error {
    /// Whether the node does not exist (ENOENT).
    pub fn is_not_found(&self) -> bool {
        self.is_refused("ENOENT")
    }

    /// Whether a transaction lost against another change and should be tried again (EAGAIN).
    pub fn is_again(&self) -> bool {
        self.is_refused("EAGAIN")
    }

    /// Whether this client may not do that (EACCES or EPERM).
    pub fn is_permission(&self) -> bool {
        self.is_refused("EACCES") || self.is_refused("EPERM")
    }

    /// Whether the daemon lacked something that it may have later, or the request lost against another one
    /// (EAGAIN, EBUSY, ENOMEM, ENOSPC or EQUOTA): the same request may succeed after a pause.
    pub fn is_temporary(&self) -> bool {
        ["EAGAIN", "EBUSY", "ENOMEM", "ENOSPC", "EQUOTA"].iter().any(|name| self.is_refused(name))
    }

    /// Whether the connection is of no more use, not only this call.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Io { .. } | Self::Protocol { .. })
    }

    fn is_refused(&self, name: &str) -> bool {
        matches!(self, Self::Refused { errno, .. } if errno == name)
    }

    pub(crate) fn io(op: Op, path: &str, source: io::Error) -> Self {
        Self::Io { op, path: path.to_owned(), source }
    }

    pub(crate) fn refused(op: Op, path: &str, errno: &str) -> Self {
        Self::Refused { op, path: path.to_owned(), errno: errno.to_owned() }
    }

    pub(crate) fn protocol(op: Op, path: &str, what: impl Into<String>) -> Self {
        Self::Protocol { op, path: path.to_owned(), what: what.into() }
    }
}

/// ` path`, or nothing.
struct Target<'a>(&'a str);

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " {}", self.0.escape_debug()) }
    }
}

struct Tried<'a>(&'a [(PathBuf, io::Error)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (path, error)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            write!(f, "{separator} {}: {error}", path.display())?;
        }
        Ok(())
    }
}
