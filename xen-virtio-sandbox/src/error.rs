use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::Layer;

/// Entering the sandbox failed. The process may be partly confined and should exit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// Most restrictions apply to the calling thread only.
    #[error(
        "the process has {0} threads, but the sandbox confines only the calling thread: enter it \
         before starting others"
    )]
    Threads(usize),
    /// A directory descriptor gives access to the file system outside: `openat(fd, "..")`.
    #[error("descriptor {fd} is the directory {path}, which gives access to files outside the sandbox: close it before entering", path = path.display())]
    Directory {
        /// The descriptor.
        fd: RawFd,
        /// What it names.
        path: PathBuf,
    },
    /// A descriptor is open that isn't listed in [`Sandbox::descriptors`](crate::Sandbox::descriptors).
    #[error("descriptor {fd} ({path}) is open but not expected: close it before entering", path = path.display())]
    Unexpected {
        /// The descriptor.
        fd: RawFd,
        /// What it names.
        path: PathBuf,
    },
    /// `/proc` is needed to list threads and descriptors.
    #[error("{path} can't be read: the sandbox needs /proc mounted")]
    Proc {
        /// The directory.
        path: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel supports the layer, but a call failed.
    #[error("sandbox layer {layer}: {what} failed")]
    Layer {
        /// The layer.
        layer: Layer,
        /// The system call or step.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// All calls succeeded, but a check afterwards shows that the layer isn't effective.
    #[error("sandbox layer {layer} isn't effective: {what}")]
    Left {
        /// The layer.
        layer: Layer,
        /// The failed check.
        what: &'static str,
    },
    /// The filter can't be compiled or installed.
    #[error("the seccomp filter can't be installed")]
    Filter(#[source] seccompiler::Error),
}

impl SandboxError {
    /// An error of a call made for `layer`.
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
