//! Waiting for what another thread does.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long an answer may take, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `done`.
///
/// # Panics
/// It isn't within [`PATIENCE`]: the text says that it was waited too long for `what`.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::yield_now();
    }
}
