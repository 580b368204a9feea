use std::time::{Duration, Instant};

/// A monotonic clock in nanoseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    /// Reads the clock.
    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The time of a reading.
    pub(crate) fn at(&self, nanos: u64) -> Instant {
        self.0.checked_add(Duration::from_nanos(nanos)).unwrap_or(self.0)
    }
}
