use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much a disk may do in a second, all of its queues together, and how much at once after it
/// has done less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests.
    pub ops: Option<Rate>,
    /// Bytes read or written. What is discarded or zeroed moves none.
    pub bytes: Option<Rate>,
}

/// One rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many a second.
    pub per_second: u64,
    /// So many at once: at least 1. A request of more than that still passes, as soon as nothing
    /// is owed, and is paid for afterwards.
    pub burst: u64,
}

/// Holds a disk to its [`RateLimits`]: what its workers share. No lock: each limit is one number,
/// the time at which all that was let through will have been paid for (the "theoretical arrival
/// time" of the generic cell rate algorithm, ITU-T I.371).
#[derive(Debug)]
pub struct RateLimiter {
    start: Instant,
    ops: Option<Limit>,
    bytes: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    rate: Rate,
    /// Nanoseconds since the limiter's start.
    paid_at: AtomicU64,
}

impl RateLimiter {
    /// A limiter that owes and is owed nothing.
    pub fn new(limits: &RateLimits) -> Self {
        let limit = |rate: Rate| Limit { rate, paid_at: AtomicU64::new(0) };
        Self { start: Instant::now(), ops: limits.ops.map(limit), bytes: limits.bytes.map(limit) }
    }

    /// Lets one request of `bytes` bytes through, or tells how long to wait before it is asked
    /// again.
    ///
    /// # Errors
    /// The time to wait.
    pub fn admit(&self, now: Instant, bytes: u64) -> Result<(), Duration> {
        let now = nanos(now.saturating_duration_since(self.start));
        if let Some(ops) = &self.ops {
            ops.take(now, 1)?;
        }
        if let Some(limit) = &self.bytes
            && let Err(wait) = limit.take(now, bytes)
        {
            if let Some(ops) = &self.ops {
                ops.give_back(1);
            }
            return Err(wait);
        }
        Ok(())
    }
}

impl Limit {
    /// What `amount` costs, in nanoseconds.
    fn cost(&self, amount: u64) -> u64 {
        let nanos = u128::from(amount).saturating_mul(1_000_000_000);
        // A rate of zero stops nearly everything, rather than dividing by it.
        let cost = nanos.checked_div(self.rate.per_second.max(1).into()).unwrap_or(0);
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    fn take(&self, now: u64, amount: u64) -> Result<(), Duration> {
        let burst = self.rate.burst.max(1);
        // More than a burst needs a whole burst's credit.
        let credit = self.cost(burst.saturating_sub(amount.min(burst)));
        let cost = self.cost(amount);
        let mut paid_at = self.paid_at.load(Ordering::Relaxed);
        loop {
            let owed_until = paid_at.max(now);
            let wait = owed_until.saturating_sub(now).saturating_sub(credit);
            if wait > 0 {
                return Err(Duration::from_nanos(wait));
            }
            let after = owed_until.saturating_add(cost);
            match self.paid_at.compare_exchange_weak(
                paid_at,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(other) => paid_at = other,
            }
        }
    }

    fn give_back(&self, amount: u64) {
        let cost = self.cost(amount);
        let subtract = |paid_at: u64| Some(paid_at.saturating_sub(cost));
        // Never refused: the closure always has a value.
        let _ = self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(ops: Option<(u64, u64)>, bytes: Option<(u64, u64)>) -> RateLimiter {
        let rate = |(per_second, burst)| Rate { per_second, burst };
        RateLimiter::new(&RateLimits { ops: ops.map(rate), bytes: bytes.map(rate) })
    }

    /// How many requests of `bytes` pass within `seconds` of a clock that waits as it is told.
    fn passed(limiter: &RateLimiter, bytes: u64, seconds: u64) -> u64 {
        let mut now = limiter.start;
        let end = now + Duration::from_secs(seconds);
        let mut passed = 0;
        while now < end {
            match limiter.admit(now, bytes) {
                Ok(()) => passed += 1,
                Err(wait) => now += wait,
            }
        }
        passed
    }

    /// So many requests at once.
    const MANY: u64 = if cfg!(miri) { 40 } else { 1000 };

    #[test]
    #[cfg_attr(miri, ignore = "thousands of requests on one thread take long")]
    fn a_burst_passes_at_once_and_then_the_rate() {
        assert_eq!(passed(&limiter(Some((100, 10)), None), 4096, 10), 10 + 1000 - 1);
        let bytes = passed(&limiter(None, Some((1 << 20, 1 << 20))), 4096, 10);
        assert!((2800..=2817).contains(&bytes), "{bytes}: 11 MiB in 4 KiB requests");
    }

    #[test]
    fn the_tighter_limit_counts() {
        let both = limiter(Some((100, 1)), Some((4096 * 10, 4096)));
        assert!((100..=101).contains(&passed(&both, 4096, 10)));
        let both = limiter(Some((10, 1)), Some((4096 * 100, 4096)));
        assert!((100..=101).contains(&passed(&both, 4096, 10)));
    }

    #[test]
    fn a_request_larger_than_the_burst_passes_and_is_paid_for() {
        let limiter = limiter(None, Some((1 << 20, 4096)));
        let passed = passed(&limiter, 1 << 20, 10);
        assert!((10..=11).contains(&passed), "{passed}");
    }

    #[test]
    fn what_was_not_used_is_kept_up_to_the_burst() {
        let limiter = limiter(Some((10, 5)), None);
        let later = limiter.start + Duration::from_secs(3600);
        let admitted = (0..100).filter(|_| limiter.admit(later, 0).is_ok()).count();
        assert_eq!(admitted, 5);
        assert_eq!(limiter.admit(later, 0), Err(Duration::from_millis(100)));
    }

    #[test]
    fn without_limits_everything_passes_and_absurd_ones_do_no_harm() {
        let none = limiter(None, None);
        assert!((0..MANY).all(|_| none.admit(none.start, u64::MAX).is_ok()));
        let zero = limiter(Some((0, 0)), None);
        assert!(zero.admit(zero.start, 1).is_ok());
        assert!(zero.admit(zero.start, 1).is_err());
        let huge = limiter(None, Some((u64::MAX, u64::MAX)));
        assert!((0..MANY).all(|_| huge.admit(huge.start, 4096).is_ok()));
        assert!(huge.admit(huge.start, u64::MAX).is_ok());
        assert!(huge.admit(huge.start, u64::MAX).is_err());
    }

    #[test]
    fn queues_share_what_there_is() {
        let limiter = limiter(Some((1, MANY)), None);
        let passed = std::thread::scope(|scope| {
            let count = || (0..MANY).filter(|_| limiter.admit(limiter.start, 0).is_ok()).count();
            let threads = [(); 4].map(|()| scope.spawn(count));
            threads.map(|thread| thread.join().unwrap() as u64).into_iter().sum::<u64>()
        });
        assert_eq!(passed, MANY);
    }
}
