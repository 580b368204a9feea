/// How zeroes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeroing {
    /// What has clusters keeps them.
    Keep,
    /// Clusters are given back.
    Unmap,
    /// Clusters are given back; what has none is left as it is.
    Discard,
}
