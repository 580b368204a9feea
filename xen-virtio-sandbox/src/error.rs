use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::Layer;

/// Why a process isn't confined, or not as far as was asked. It may be confined in part: it should
/// end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// Most of what confines a process is a property of each thread.
    #[error(
        "the process has {0} threads, and the sandbox would confine only the calling one: enter it \
         before starting threads"
    )]
    Threads(usize),
    /// A directory's descriptor leads out of an empty root: `openat(fd, "..")`.
    #[error("descriptor {fd} is the directory {path}, which would lead out of the sandbox: close it before", path = path.display())]
    Directory {
        /// The descriptor.
        fd: RawFd,
        /// What it names.
        path: PathBuf,
    },
    /// A descriptor that isn't among those of [`Sandbox::descriptors`](crate::Sandbox::descriptors).
    #[error("descriptor {fd}, {path}, is open and not one that the process is meant to have", path = path.display())]
    Unexpected {
        /// The descriptor.
        fd: RawFd,
        /// What it names.
        path: PathBuf,
    },
    /// `/proc` is needed to see threads and descriptors.
    #[error("{path} can't be read: /proc has to be mounted where the sandbox is entered")]
    Proc {
        /// What was to be read.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has this layer, and refused it.
    #[error("sandbox layer {layer}: {what} failed")]
    Layer {
        /// Which one.
        layer: Layer,
        /// The call.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A call succeeded and had no effect.
    #[error("sandbox layer {layer}: {what} after it was given up")]
    Left {
        /// Which one.
        layer: Layer,
        /// What is left.
        what: &'static str,
    },
    /// No filter can be made for this architecture, or of these additions.
    #[error("the seccomp filter can't be made")]
    Filter(#[source] seccompiler::Error),
}

impl SandboxError {
    /// An error of `layer`, from whichever library made the call.
    pub(crate) fn layer<E: Into<io::Error>>(
        layer: Layer,
        what: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Layer { layer, what, source: source.into() }
    }
}

impl From<seccompiler::BackendError> for SandboxError {
    fn from(error: seccompiler::BackendError) -> Self {
        Self::Filter(error.into())
    }
}
