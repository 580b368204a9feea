use std::io;

/// Guest memory is in use by operations that may never complete: it must stay mapped, and must not be
/// reused.
#[derive(Debug, thiserror::Error)]
#[error(
    "{operations} operations have not come back from the kernel, which may still access their \
     guest memory: keep that memory mapped until the process ends"
)]
#[must_use]
#[non_exhaustive]
pub struct StillInUse {
    /// The number of operations.
    pub operations: usize,
    /// Why they can't be waited for; `None` if the wait timed out.
    pub source: Option<io::Error>,
}

impl StillInUse {
    /// See the fields.
    pub fn new(operations: usize, source: Option<io::Error>) -> Self {
        Self { operations, source }
    }
}

/// The failure of an engine, which then carries out operations in a slower way.
#[derive(Debug, thiserror::Error)]
#[error(
    "io_uring stopped working, with {held} operations in flight, as io_uring_enter failed; requests \
     are carried out one after the other from here on: look for a seccomp filter or security policy \
     that forbids the call"
)]
#[non_exhaustive]
pub struct EngineFault {
    /// Operations that were in the kernel. They usually still complete.
    pub held: usize,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

impl EngineFault {
    /// See the fields.
    pub fn new(held: usize, error: io::Error) -> Self {
        Self { held, error }
    }
}
