use super::pool::BouncePool;

/// How a [`UringEngine`](super::UringEngine) works.
#[derive(Clone, Debug)]
pub struct UringConfig {
    /// Operations that the kernel has in hand at once, from 1 to 4096: more wait in the engine.
    /// Rounded up to a power of two.
    pub depth: u16,
    /// Operations that need not wait for a device are done without the ring where that is cheaper.
    pub inline: bool,
    /// For images open with `O_DIRECT`: the kernel can pin guest memory, so that data need not be
    /// copied on its way. It can't where the memory is another domain's; that is found out, too,
    /// but only when an operation meets with it.
    pub direct_into_guest: bool,
    /// For images open with `O_DIRECT`: the buffers for what direct I/O refuses. The engines of a disk
    /// should have one pool together. An operation that finds none free waits in the engine.
    pub bounce: BouncePool,
}

impl Default for UringConfig {
    /// 128 operations at once, the ring only where it pays, and a pool of its own for bouncing.
    fn default() -> Self {
        let bounce = BouncePool::new(BouncePool::DISK);
        Self { depth: 128, inline: true, direct_into_guest: true, bounce }
    }
}
