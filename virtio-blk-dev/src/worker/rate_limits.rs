/// How much a disk may do per second, all of its queues together, and how much in one burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RateLimits {
    /// Requests.
    pub ops: Option<Rate>,
    /// Bytes read, written, zeroed or erased. Zeroed and erased bytes count even where the storage can do
    /// that without transferring data, as this isn't known in advance. Discarded bytes don't count.
    pub bytes: Option<Rate>,
}

/// One rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rate {
    /// Units per second: at least 1.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "at_least_one"))]
    pub per_second: u64,
    /// Units in one burst: at least 1. A larger request passes as soon as a full burst's credit has
    /// accumulated, and delays those after it accordingly.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "at_least_one"))]
    pub burst: u64,
}

#[cfg(feature = "serde")]
fn at_least_one<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    <std::num::NonZeroU64 as serde::Deserialize>::deserialize(deserializer).map(Into::into)
}
