use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Layer, SandboxError, State};

/// Resource limits, set as both soft and hard limit (setrlimit(2)). A hard limit that is already lower
/// is kept.
///
/// In addition `RLIMIT_CORE`, `RLIMIT_MSGQUEUE` and `RLIMIT_MEMLOCK` are set to 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// `RLIMIT_NOFILE`: one more than the highest descriptor number.
    pub open_files: u64,
    /// `RLIMIT_NPROC`: threads of all processes of the user. io_uring's worker threads count, too:
    /// up to `min(entries, 4 × CPUs)` for each thread that submits
    /// (`IORING_REGISTER_IOWQ_MAX_WORKERS` can lower that). `None` leaves it unchanged. Not
    /// effective for root, so it needs [`Layer::Identity`].
    pub threads: Option<u64>,
    /// `RLIMIT_FSIZE`: writes to a regular file at or beyond this offset fail. This applies to
    /// images, too, so it must be at least the size of the largest raw image; qcow2 files grow, so
    /// they need more. `None` leaves it unchanged, which is the default as the process can't
    /// create files. A write beyond the limit also raises SIGXFSZ, which must be ignored.
    pub file_size: Option<u64>,
}

impl Default for Limits {
    /// 1024 descriptors, 4096 threads, `RLIMIT_FSIZE` unchanged.
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
