//! Closing what stands on storage that may not answer.

use std::thread;

/// Drops it on a thread of its own, which may wait for storage; or here, if there is none to be had.
pub(crate) fn close(open: impl Send + 'static) {
    // If it fails, the closure is dropped, and what it holds.
    let _ = thread::Builder::new().name("close".into()).spawn(move || drop(open));
}
