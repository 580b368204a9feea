use std::sync::Arc;
use std::time::Instant;

use super::active_limits::{ActiveLimits, Reservation};
use super::rate_limiter::RateLimiter;

/// The limits of a disk as one of its workers last saw them.
#[derive(Debug, Default)]
pub(crate) struct LimiterView {
    limiter: Option<Arc<RateLimiter>>,
    generation: u64,
    active: Option<Arc<ActiveLimits>>,
}

impl LimiterView {
    pub(crate) fn new(limiter: Arc<RateLimiter>) -> Self {
        let (generation, active) = limiter.read();
        Self { limiter: Some(limiter), generation, active }
    }

    /// Whether there is any limit.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.active.is_some()
    }

    /// Takes over the limits in force. Returns whether they are others than before.
    #[inline]
    pub(crate) fn refresh(&mut self) -> bool {
        let newer = |limiter: &&Arc<RateLimiter>| limiter.generation() != self.generation;
        match self.limiter.as_ref().filter(newer).map(Arc::clone) {
            Some(limiter) => {
                *self = Self::new(limiter);
                true
            }
            None => false,
        }
    }

    /// Reserves the start of a request of `bytes` bytes. `None` if it may start now.
    pub(crate) fn reserve(&self, now: Instant, bytes: u64) -> Option<Reservation> {
        self.active.as_ref()?.reserve(now, bytes)
    }
}
