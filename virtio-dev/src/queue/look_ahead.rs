//! What is looked at ahead of its turn.

/// What a batch may look at ahead.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LookAhead {
    /// Chains that may still be taken in this way.
    pub(super) chains: usize,
    /// The most bytes to be read that the chains have that are looked at in one go.
    pub(super) bytes: u64,
    /// The available entry of the next chain that was looked at.
    pub(super) next: u16,
}

impl LookAhead {
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.chains != 0
    }
}
