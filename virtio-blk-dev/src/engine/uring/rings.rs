use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use io_uring::IoUring;

use super::error::UringError;
use super::setup::restricted;

/// Rings created in advance, for a process that is sandboxed before it gets its images. Clones share them.
///
/// A sandboxed process shouldn't be allowed to create rings, because their operations bypass seccomp. These
/// are restricted (`IORING_REGISTER_RESTRICTIONS`, io_uring_register(2)): they can only read, write, flush
/// and fallocate one file each, which is registered with them. Using them takes io_uring_enter(2), and
/// io_uring_register(2) with `IORING_REGISTER_FILES_UPDATE`.
///
/// An [engine](super::UringEngine) of whose [configuration](super::UringConfig::rings) this is a part takes a
/// ring and puts it back when it is dropped, without the image's file. A ring that broke, or that the kernel
/// still has operations of, is closed instead.
#[derive(Clone)]
pub struct RingPool(Arc<Pool>);

struct Pool {
    depth: u16,
    rings: u16,
    free: Mutex<Vec<IoUring>>,
}

impl RingPool {
    /// So many rings, one for each queue of all disks, each for `depth` operations in flight, from 1 to 4096.
    /// A pool of none can be made on every kernel. With it engines are refused, but don't try to create rings.
    ///
    /// # Errors
    /// See [`UringError`].
    pub fn new(rings: u16, depth: u16) -> Result<Self, UringError> {
        let depth = depth.clamp(1, 4096);
        let free = (0..rings).map(|_| restricted(depth.into())).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Pool { depth, rings, free: Mutex::new(free) })))
    }

    /// The most operations in flight in each ring.
    pub fn depth(&self) -> u16 {
        self.0.depth
    }

    /// The number of rings that no engine has.
    pub fn free(&self) -> usize {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn take(&self) -> Result<IoUring, UringError> {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().ok_or(UringError::Exhausted { rings: self.0.rings })
    }

    /// Puts back a ring that came from here. It has no file and no operations.
    pub(super) fn put(&self, ring: IoUring) {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner).push(ring);
    }
}

impl fmt::Debug for RingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingPool")
            .field("depth", &self.0.depth)
            .field("rings", &self.0.rings)
            .field("free", &self.free())
            .finish()
    }
}
