use std::sync::atomic::{AtomicBool, Ordering};

/// Whether flushes of a disk can still succeed.
///
/// Once a flush, or a write that had to be stable on completion, has failed, they can't: a kernel reports a
/// write-back error once, to the first caller, drops the data that it couldn't write, and succeeds the
/// next time. So from then on every flush and every such write of any queue fails, until the image is
/// opened, and its device made, anew.
///
/// A write that failed for lack of space is not such a failure: the storage took none of its data, and
/// nothing written before is lost.
#[derive(Debug, Default)]
pub struct Durability {
    lost: AtomicBool,
}

impl Durability {
    /// Whether a flush or durable write has failed, so that none succeeds any more.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Records that a flush or durable write has failed. Returns whether it is the first.
    pub(crate) fn lose(&self) -> bool {
        !self.lost.swap(true, Ordering::AcqRel)
    }
}
