//! What a guest can cause is logged a bounded number of times.

use std::time::{Duration, Instant};

const BURST: u32 = 8;
const PERIOD: Duration = Duration::from_secs(60);

/// At most eight lines a minute; the rest is counted.
#[derive(Debug)]
pub(crate) struct LogLimit {
    since: Instant,
    lines: u32,
    dropped: u64,
}

impl LogLimit {
    /// A fresh allowance.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), lines: 0, dropped: 0 }
    }

    /// Whether a line may be logged now; if so, how many were not since the last one.
    pub(crate) fn allow(&mut self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= PERIOD {
            self.since = now;
            self.lines = 0;
        }
        if self.lines == BURST {
            self.dropped += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut limit = LogLimit::new();
        let start = limit.since;
        let allowed = (0..100).filter_map(|_| limit.allow_at(start)).count();
        assert_eq!(allowed, 8);
        assert_eq!(limit.allow_at(start + PERIOD), Some(92));
    }
}
