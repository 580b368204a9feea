use std::sync::Arc;
use std::time::{Duration, Instant};

use super::limit::Limit;
use super::rate_limits::RateLimits;

/// The limits of a disk from one [`set`](super::RateLimiter::set) to the next, and how much of them is used.
///
/// A request [reserves](Self::reserve) a start time once: requests start in the order of their
/// reservations, whatever their size and queue. As a worker holds back one request at most, a request
/// waits for no more than its own cost and that of one request of each other queue.
#[derive(Debug)]
pub(crate) struct ActiveLimits {
    start: Instant,
    ops: Option<Limit>,
    bytes: Option<Limit>,
}

/// The time at which a request may start, and what was reserved for it.
#[derive(Debug)]
#[must_use = "a reservation that isn't used must be given back"]
pub(crate) struct Reservation {
    /// Where it was reserved: these may not be the disk's limits any more.
    limits: Arc<ActiveLimits>,
    /// Nanoseconds since the start of the limits.
    at: u64,
    bytes: u64,
}

impl ActiveLimits {
    /// These limits, with full credit; `None` if there is no limit among them.
    pub(crate) fn new(limits: &RateLimits) -> Option<Self> {
        if *limits == RateLimits::default() {
            return None;
        }
        let RateLimits { ops, bytes } = limits;
        Some(Self { start: Instant::now(), ops: ops.map(Limit::new), bytes: bytes.map(Limit::new) })
    }

    /// The limits.
    pub(crate) fn limits(&self) -> RateLimits {
        let Self { ops, bytes, .. } = self;
        RateLimits { ops: ops.as_ref().map(Limit::rate), bytes: bytes.as_ref().map(Limit::rate) }
    }

    /// Reserves the start of one request of `bytes` bytes, after all earlier reservations. `None` if that is now.
    pub(crate) fn reserve(self: &Arc<Self>, now: Instant, bytes: u64) -> Option<Reservation> {
        let now = self.nanos(now);
        let ops = self.ops.as_ref().map_or(now, |limit| limit.reserve(now, 1));
        let moved = self.bytes.as_ref().map_or(now, |limit| limit.reserve(now, bytes));
        let at = ops.max(moved);
        (at > now).then(|| Reservation { limits: Arc::clone(self), at, bytes })
    }

    fn nanos(&self, time: Instant) -> u64 {
        let nanos = time.saturating_duration_since(self.start).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

impl Reservation {
    /// The time from `now` until the request may start; `None` if it may.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let left = self.at.saturating_sub(self.limits.nanos(now));
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// Gives back the reservation of a request that doesn't start, and returns its bytes.
    pub(crate) fn give_back(self) -> u64 {
        let Self { limits, bytes, .. } = self;
        if let Some(limit) = &limits.ops {
            limit.give_back(1);
        }
        if let Some(limit) = &limits.bytes {
            limit.give_back(bytes);
        }
        bytes
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
