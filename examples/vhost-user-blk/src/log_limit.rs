//! What a guest can cause is logged a bounded number of times.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

const BURST: u32 = 8;
const PERIOD: Duration = Duration::from_secs(60);

/// At most eight lines a minute, of all its clones together; the rest is counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogLimit(Arc<Mutex<Allowance>>);

#[derive(Debug, Default)]
struct Allowance {
    since: Option<Instant>,
    lines: u32,
    dropped: u64,
}

impl LogLimit {
    /// Whether a line may be logged now; if so, how many were not since the last one.
    pub(crate) fn allow(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).allow_at(Instant::now())
    }
}

impl Allowance {
    fn allow_at(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= PERIOD) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == BURST {
            self.dropped += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        let mut allowance = Allowance::default();
        let allowed = (0..100).filter_map(|_| allowance.allow_at(start)).count();
        assert_eq!(allowed, 8);
        assert_eq!(allowance.allow_at(start + PERIOD), Some(92));
    }
}
