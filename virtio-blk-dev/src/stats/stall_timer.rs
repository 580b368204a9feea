use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// For how long requests have been in flight without any being answered. One thread writes it, by relaxed stores of
/// readings of the clock that it has made anyway; any may read it.
#[derive(Debug, Default)]
pub(crate) struct StallTimer {
    clock: Clock,
    /// The last answer's reading of the clock, or, if there was none since, that of when the first request was taken.
    /// 0 if nothing is in flight.
    since: AtomicU64,
}

impl StallTimer {
    /// The clock of the readings.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Requests are in flight. Returns whether none was before.
    #[inline]
    pub(crate) fn begin(&self, now: u64) -> bool {
        let is_first = self.since.load(Ordering::Relaxed) == 0;
        if is_first {
            self.restart(now);
        }
        is_first
    }

    /// A request was answered, and others are in flight.
    #[inline]
    pub(crate) fn restart(&self, now: u64) {
        self.since.store(now.max(1), Ordering::Relaxed);
    }

    /// Nothing is in flight.
    #[inline]
    pub(crate) fn stop(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Reads the clock if something is in flight.
    pub(crate) fn read(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_nanos(self.clock.nanos().saturating_sub(since)),
        }
    }
}
