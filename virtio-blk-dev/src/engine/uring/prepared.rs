use std::fmt;

use io_uring::IoUring;

use super::error::UringError;
use super::ring::disabled;

/// A ring made ahead of the disk that it will serve, for a process that soon may make none and open
/// nothing: what a ring carries out passes a seccomp filter by. It can be enabled for one image, see
/// [`UringEngine::with_ring`](super::UringEngine::with_ring), and then does nothing but read, write,
/// flush and allocate that file (`IORING_REGISTER_RESTRICTIONS`, io_uring_register(2)).
///
/// Before that it does nothing at all. The process needs `io_uring_register` with
/// `IORING_REGISTER_FILES` and `IORING_REGISTER_ENABLE_RINGS` to enable it, and then only
/// `io_uring_enter`.
pub struct PreparedRing {
    pub(super) ring: IoUring,
    pub(super) depth: u16,
}

impl PreparedRing {
    /// For an engine that has the kernel do `depth` operations at once, from 1 to 4096.
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
