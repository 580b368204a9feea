/// What happens to the clusters of a zeroed range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeroing {
    /// They stay allocated.
    Keep,
    /// They are deallocated.
    Unmap,
    /// They are deallocated; ranges without clusters are left unchanged.
    Discard,
}
