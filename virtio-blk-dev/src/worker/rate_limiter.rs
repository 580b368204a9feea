use std::sync::{Arc, PoisonError};

use super::active_limits::ActiveLimits;
use super::rate_limits::RateLimits;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Enforces the [`RateLimits`] of a disk; shared by its workers. The limits can be [set](Self::set) anew while
/// the workers run.
///
/// For a request, a worker takes no lock. Once in an iteration it looks by one relaxed load whether the limits
/// have been set anew, and only then locks to take them over.
#[derive(Debug)]
pub struct RateLimiter {
    /// How often the limits were set. Written while `active` is locked.
    generation: AtomicU64,
    /// `None` if there is no limit.
    active: Mutex<Option<Arc<ActiveLimits>>>,
}

impl RateLimiter {
    /// A limiter with full credit.
    pub fn new(limits: &RateLimits) -> Self {
        Self {
            generation: AtomicU64::new(0),
            active: Mutex::new(ActiveLimits::new(limits).map(Arc::new)),
        }
    }

    /// The limits that were set last.
    pub fn limits(&self) -> RateLimits {
        self.read().1.map_or_else(RateLimits::default, |active| active.limits())
    }

    /// Replaces the limits. They begin with full credit, whatever was used of the old ones. Setting the limits that
    /// are in force changes nothing.
    ///
    /// A worker takes them over at its next [`run`](crate::Worker::run), which also gives a request that the old
    /// limits delay the time of the new ones. So have each worker run after this call: a thread that
    /// [serves](crate::Worker::serve) is woken as for a notification of the driver.
    pub fn set(&self, limits: &RateLimits) {
        let new = ActiveLimits::new(limits).map(Arc::new);
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if active.as_ref().map(|active| active.limits()) != new.as_ref().map(|new| new.limits()) {
            *active = new;
            let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1);
            self.generation.store(generation, Ordering::Relaxed);
        }
    }

    /// How often the limits were set. If this is older than what is in force, the wake-up that follows
    /// [`set`](Self::set) is still to come.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The limits in force, and their generation.
    pub(crate) fn read(&self) -> (u64, Option<Arc<ActiveLimits>>) {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        (self.generation(), active.clone())
    }
}

#[cfg(test)]
mod tests;
