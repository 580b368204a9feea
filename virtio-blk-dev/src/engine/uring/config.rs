use super::pool::BouncePool;
use super::rings::RingPool;

/// The options of a [`UringEngine`](super::UringEngine).
#[derive(Clone, Debug)]
pub struct UringConfig {
    /// The most operations in the kernel at once, from 1 to 4096, rounded up to a power of two. More are
    /// queued in the engine.
    pub depth: u16,
    /// Do operations that needn't wait for a device without the ring where that is cheaper.
    pub inline: bool,
    /// For images open with `O_DIRECT`: the kernel can pin guest memory, so that data needn't be copied. It
    /// can't if the memory is another domain's. This is also detected, but at the cost of one failed operation.
    pub direct_into_guest: bool,
    /// For images open with `O_DIRECT`: the buffers for memory that direct I/O doesn't take. The engines of a
    /// disk should share a pool. An operation that gets no buffer waits in the engine.
    pub bounce: BouncePool,
    /// Take the ring from here rather than create one. Its depth is used instead of `depth`.
    ///
    /// The image's file is registered with such a ring until the engine is dropped, and the kernel may close
    /// it some time after that. If that is the open file description with the image's lock, the lock is held
    /// until then. This is the case for read-only images, and where the file can't be opened again (no /proc,
    /// and no [spare](crate::RawOptions::spares)).
    pub rings: Option<RingPool>,
}

impl Default for UringConfig {
    /// 128 operations at once, the ring only where it pays, a pool of its own for bouncing, and a ring created
    /// for it.
    fn default() -> Self {
        let bounce = BouncePool::new(BouncePool::DISK);
        Self { depth: 128, inline: true, direct_into_guest: true, bounce, rings: None }
    }
}
