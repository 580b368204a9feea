use std::fmt;

use io_uring::IoUring;

use super::error::UringError;
use super::ring::disabled;

/// A ring created in advance, for a process that is sandboxed before it gets its images.
///
/// A sandboxed process shouldn't be allowed to create rings, because their operations bypass seccomp. This
/// one is created disabled, and restricted (`IORING_REGISTER_RESTRICTIONS`, io_uring_register(2)): once
/// enabled by [`UringEngine::with_ring`](super::UringEngine::with_ring) it can only read, write, flush and
/// fallocate the image's file. Enabling takes io_uring_register(2) with `IORING_REGISTER_FILES` and
/// `IORING_REGISTER_ENABLE_RINGS`; using it, io_uring_enter(2).
pub struct PreparedRing {
    pub(super) ring: IoUring,
    pub(super) depth: u16,
}

impl PreparedRing {
    /// A ring for `depth` operations in flight, from 1 to 4096.
    ///
    /// # Errors
    /// See [`UringError`].
    pub fn new(depth: u16) -> Result<Self, UringError> {
        let depth = depth.clamp(1, 4096);
        Ok(Self { ring: disabled(depth.into())?, depth })
    }
}

impl fmt::Debug for PreparedRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedRing").field("depth", &self.depth).finish_non_exhaustive()
    }
}
