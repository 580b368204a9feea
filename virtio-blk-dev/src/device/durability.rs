use std::sync::atomic::{AtomicBool, Ordering};

/// Whether what is written to a disk can still be brought to stable storage.
///
/// It can't any more once a flush has failed, or a write that was to be stable when it completes:
/// a kernel reports a write-back error once, to whoever asks first, drops the data that it couldn't
/// write, and succeeds the next time. So from then on every flush and every such write of any queue
/// fails, until the image is opened and its device made anew.
///
/// A write that the storage had no room for isn't one of these: it is refused before any of it is
/// taken, and nothing that was written before is lost with it.
#[derive(Debug, Default)]
pub struct Durability {
    lost: AtomicBool,
}

impl Durability {
    /// A flush has failed: none succeeds any more.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// A flush has failed; whether it is the first.
    pub(crate) fn lose(&self) -> bool {
        !self.lost.swap(true, Ordering::AcqRel)
    }
}
