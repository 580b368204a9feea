//! How a guest lets a backend reach its memory.

/// How a guest lets the backend reach its memory: the node `grant_usage` of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// `0`: the backend maps what it likes, and a buffer's address is where it is in the guest.
    Foreign,
    /// `1`: the guest grants page by page, and a buffer's address is a grant reference.
    Grant,
}

impl Sharing {
    /// Both, for tests that go through them.
    pub const ALL: [Self; 2] = [Self::Foreign, Self::Grant];
}
