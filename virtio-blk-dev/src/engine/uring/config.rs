/// How a [`UringEngine`](super::UringEngine) works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringConfig {
    /// Operations that the kernel has in hand at once, from 1 to 4096: more wait in the engine.
    /// Rounded up to a power of two.
    pub depth: u16,
    /// Operations that need not wait for a device are done without the ring where that is cheaper.
    pub inline: bool,
}

impl Default for UringConfig {
    /// 128 operations at once, and the ring only where it pays.
    fn default() -> Self {
        Self { depth: 128, inline: true }
    }
}
