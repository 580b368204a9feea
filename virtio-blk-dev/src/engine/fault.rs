use std::io;

/// Guest memory is in use by operations that may never come back: it must stay mapped, and mustn't
/// be taken for free.
#[derive(Debug, thiserror::Error)]
#[error(
    "{operations} operations have not come back from the kernel, which may still access their \
     guest memory: keep that memory mapped until the process ends"
)]
#[must_use]
#[non_exhaustive]
pub struct StillInUse {
    /// How many.
    pub operations: usize,
    /// Why they can't be waited for; `None` if that was done in vain.
    pub source: Option<io::Error>,
}

impl StillInUse {
    /// So many operations, and why they can't be waited for.
    pub fn new(operations: usize, source: Option<io::Error>) -> Self {
        Self { operations, source }
    }
}

/// Why an engine doesn't work as it was made to.
#[derive(Debug, thiserror::Error)]
#[error(
    "io_uring stopped working, with {held} operations in flight, as io_uring_enter failed; requests \
     are carried out one after the other from here on: look for a seccomp filter or security policy \
     that forbids the call"
)]
#[non_exhaustive]
pub struct EngineFault {
    /// Operations that the kernel had in hand. It still completes them, unless it can't.
    pub held: usize,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

impl EngineFault {
    /// What the system said, with so many operations in the kernel's hands.
    pub fn new(held: usize, error: io::Error) -> Self {
        Self { held, error }
    }
}
