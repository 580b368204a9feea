use std::time::{Duration, Instant};

/// A clock that began when it was made.
#[derive(Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since then.
    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// What `nanos` is on other clocks.
    pub(crate) fn at(&self, nanos: u64) -> Instant {
        self.0.checked_add(Duration::from_nanos(nanos)).unwrap_or(self.0)
    }
}
