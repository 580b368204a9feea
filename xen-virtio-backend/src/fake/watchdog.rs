//! A limit on how long a test may hang.

use std::{
    process,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

/// How long a test may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Ends the test process if it isn't dropped within a minute, for drivers that poll a ring without a limit of their
/// own. [`FakeDriver`](super::FakeDriver) has one.
#[must_use = "the limit ends when it is dropped"]
#[derive(Debug)]
pub struct Watchdog(#[expect(dead_code, reason = "its drop is the signal")] Sender<()>);

impl Watchdog {
    /// Starts the time of the test that this thread runs.
    pub fn start() -> Self {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let (alive, ended) = mpsc::channel();
        thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test} hangs");
                process::abort();
            }
        });
        Self(alive)
    }
}
