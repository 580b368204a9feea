//! How an access fails.

/// Why an access has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No server has these bytes: the guest's instruction aborts.
    #[error("no IOREQ server takes the access")]
    Abort,
    /// No answer came, or none can come any more: the vCPU hangs for good.
    #[error("the access is not answered: the vCPU hangs")]
    Hung,
    /// The state of a slot went down, or to nonsense: Xen crashes the guest.
    #[error("the slot's state went wrong: the guest is crashed")]
    Crashed,
    /// The guest was destroyed.
    #[error("the guest is destroyed")]
    Destroyed,
}
