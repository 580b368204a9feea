//! What a server counts.

/// The counters of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests handed out.
    pub requests: u64,
    /// Events without a request: it had been claimed before its event was read, or the channel had just been bound.
    pub spurious: u64,
}
