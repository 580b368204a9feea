//! Dropping what may block.

use std::thread;

/// Drops `value` on a thread of its own: it holds an image, whose storage may not answer. Without a thread, it is
/// dropped here.
pub(crate) fn drop_elsewhere(value: impl Send + 'static) {
    // If it fails, the closure is dropped, and what it holds.
    let _ = thread::Builder::new().name("close".into()).spawn(move || drop(value));
}
