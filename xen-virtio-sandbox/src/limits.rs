use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Layer, SandboxError, State};

/// What a process may use at most, hard and soft limit alike (setrlimit(2)); a lower hard limit that
/// it has already stays.
///
/// Beside these, core dumps, message queues and locked memory are limited to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// `RLIMIT_NOFILE`: descriptors are below it.
    pub open_files: u64,
    /// `RLIMIT_NPROC`: threads of all processes of the user. Workers that io_uring starts in the
    /// kernel count as well: for each thread that submits at most
    /// `min(entries, 4 × CPUs)` (`IORING_REGISTER_IOWQ_MAX_WORKERS` lowers that). `None` leaves it
    /// as it is. Root isn't bound by it, so it needs an identity of its own.
    pub threads: Option<u64>,
    /// `RLIMIT_FSIZE`: no write reaches beyond this offset of a regular file, nor does it make one
    /// longer. That includes images, so it must be the largest image's size, of a raw image that
    /// won't be resized; a qcow2 file grows by what its guest writes. `None` leaves it as it is:
    /// the process can't open or make a file anyway. A write beyond also raises SIGXFSZ, which has
    /// to be ignored.
    pub file_size: Option<u64>,
}

impl Default for Limits {
    /// 1024 descriptors, 4096 threads, no limit of files' sizes.
    fn default() -> Self {
        Self { open_files: 1024, threads: Some(4096), file_size: None }
    }
}

impl Limits {
    pub(crate) fn enter(self) -> Result<State, SandboxError> {
        let limits = [
            (Resource::Nofile, "RLIMIT_NOFILE", Some(self.open_files)),
            (Resource::Nproc, "RLIMIT_NPROC", self.threads),
            (Resource::Fsize, "RLIMIT_FSIZE", self.file_size),
            (Resource::Core, "RLIMIT_CORE", Some(0)),
            (Resource::Msgqueue, "RLIMIT_MSGQUEUE", Some(0)),
            (Resource::Memlock, "RLIMIT_MEMLOCK", Some(0)),
        ];
        for (resource, what, limit) in limits {
            let Some(limit) = limit else { continue };
            let limit = getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit));
            let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
            setrlimit(resource, limit).map_err(SandboxError::layer(Layer::Limits, what))?;
        }
        Ok(State::On)
    }
}
