use std::io;

/// No [`UringEngine`](super::UringEngine) can be had: the caller takes a
/// [`SyncEngine`](crate::SyncEngine) instead, and says why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UringError {
    /// The system call is unknown (`ENOSYS`).
    #[error(
        "the kernel has no io_uring, or a seccomp filter hides it: it takes Linux 5.6 or newer \
         with CONFIG_IO_URING, and io_uring_setup, io_uring_enter and io_uring_register allowed"
    )]
    Missing,
    /// The process may not use it (`EPERM`, `EACCES`).
    #[error(
        "io_uring is forbidden to this process: set the sysctl kernel.io_uring_disabled to 0, or \
         allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp filter or \
         security policy"
    )]
    Forbidden,
    /// The memory of the rings can't be had (`ENOMEM`).
    #[error(
        "no memory for the rings: raise the limit of this process's memory cgroup (MemoryMax= of \
         its systemd unit) or free memory of the host; a kernel older than Linux 5.12 counts the \
         rings against RLIMIT_MEMLOCK instead (LimitMEMLOCK=, `ulimit -l`)"
    )]
    Memory,
    /// The kernel has rings, but not this operation on them.
    #[error("this kernel's io_uring has no {0}: it takes Linux 5.6 or newer")]
    Operation(&'static str),
    /// The kernel has io_uring, but not `IORING_REGISTER_RESTRICTIONS`.
    #[error("this kernel's io_uring can't be restricted: it takes Linux 5.10 or newer")]
    Restrictions,
    /// The [pool](super::RingPool) has no ring left: engines have them, or they have failed.
    #[error(
        "no io_uring is left of the {rings} that were created before the process was confined: \
         create one for each queue of all disks"
    )]
    Exhausted {
        /// The number of rings created.
        rings: u16,
    },
    /// Anything else.
    #[error("io_uring can't be set up: {what} failed")]
    Setup {
        /// The step that failed.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl UringError {
    pub(super) fn new(what: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden,
            Some(libc::ENOMEM) => Self::Memory,
            _ => Self::Setup { what, source },
        }
    }
}

impl UringError {
    /// Of a step that kernels without restrictions refuse with `EINVAL`.
    pub(super) fn restrictions(self) -> Self {
        match self {
            Self::Setup { source, .. } if source.raw_os_error() == Some(libc::EINVAL) => {
                Self::Restrictions
            }
            other => other,
        }
    }
}

impl From<UringError> for io::Error {
    fn from(error: UringError) -> Self {
        let kind = match &error {
            UringError::Missing | UringError::Operation(_) | UringError::Restrictions => {
                io::ErrorKind::Unsupported
            }
            UringError::Forbidden => io::ErrorKind::PermissionDenied,
            UringError::Memory => io::ErrorKind::OutOfMemory,
            UringError::Exhausted { .. } => io::ErrorKind::ResourceBusy,
            UringError::Setup { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_the_operator_can_do() {
        for (errno, kind, hint) in [
            (libc::ENOSYS, io::ErrorKind::Unsupported, "seccomp"),
            (libc::EPERM, io::ErrorKind::PermissionDenied, "kernel.io_uring_disabled"),
            (libc::ENOMEM, io::ErrorKind::OutOfMemory, "ulimit -l"),
            (libc::ENOMEM, io::ErrorKind::OutOfMemory, "MemoryMax="),
            (libc::EMFILE, io::Error::from_raw_os_error(libc::EMFILE).kind(), "the ring"),
        ] {
            let error = UringError::new("the ring", io::Error::from_raw_os_error(errno));
            assert!(error.to_string().contains(hint), "{error}");
            assert_eq!(io::Error::from(error).kind(), kind);
        }
    }
}
