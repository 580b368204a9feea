/// How much a disk may do per second, all of its queues together, and how much in one burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests.
    pub ops: Option<Rate>,
    /// Bytes read, written, zeroed or erased. Zeroed and erased bytes count even where the storage can do
    /// that without transferring data, as this isn't known in advance. Discarded bytes don't count.
    pub bytes: Option<Rate>,
}

/// One rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units per second.
    pub per_second: u64,
    /// Units in one burst: at least 1. A larger request passes as soon as a full burst's credit has
    /// accumulated, and delays those after it accordingly.
    pub burst: u64,
}
