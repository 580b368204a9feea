use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::rate_limits::{Rate, RateLimits};

/// Enforces the [`RateLimits`] of a disk; shared by its workers. It takes no lock: the state of each limit
/// is one number, the theoretical arrival time of the generic cell rate algorithm (ITU-T I.371).
///
/// A request [reserves](Self::reserve) a start time once: requests start in the order of their
/// reservations, whatever their size and queue. As a worker holds back one request at most, a request
/// waits for no more than its own cost and that of one request of each other queue.
#[derive(Debug)]
pub struct RateLimiter {
    start: Instant,
    ops: Option<Limit>,
    bytes: Option<Limit>,
}

/// The time at which a request may start, and what was reserved for it.
#[derive(Debug)]
#[must_use = "a reservation that isn't used must be given back"]
pub struct Reservation {
    /// Nanoseconds since the limiter's start.
    at: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Limit {
    rate: Rate,
    /// Nanoseconds since the limiter's start.
    arrival: AtomicU64,
}

impl RateLimiter {
    /// A limiter with full credit.
    pub fn new(limits: &RateLimits) -> Self {
        let limit = |rate: Rate| Limit { rate, arrival: AtomicU64::new(0) };
        Self { start: Instant::now(), ops: limits.ops.map(limit), bytes: limits.bytes.map(limit) }
    }

    /// Reserves the start of one request of `bytes` bytes, after all earlier reservations.
    pub fn reserve(&self, now: Instant, bytes: u64) -> Reservation {
        let now = self.nanos(now);
        let ops = self.ops.as_ref().map_or(now, |limit| limit.reserve(now, 1));
        let moved = self.bytes.as_ref().map_or(now, |limit| limit.reserve(now, bytes));
        Reservation { at: ops.max(moved), bytes }
    }

    /// The time from `now` until `reservation`; `None` if it has been reached.
    pub fn wait(&self, reservation: &Reservation, now: Instant) -> Option<Duration> {
        let left = reservation.at.saturating_sub(self.nanos(now));
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// Gives back the reservation of a request that doesn't start.
    pub fn give_back(&self, reservation: Reservation) {
        if let Some(limit) = &self.ops {
            limit.give_back(1);
        }
        if let Some(limit) = &self.bytes {
            limit.give_back(reservation.bytes);
        }
    }

    fn nanos(&self, time: Instant) -> u64 {
        let nanos = time.saturating_duration_since(self.start).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

impl Limit {
    /// The cost of `amount` units, in nanoseconds.
    fn cost(&self, amount: u64) -> u64 {
        let nanos = u128::from(amount).saturating_mul(1_000_000_000);
        // A rate of zero is taken as one, which stops nearly everything, to avoid a division by zero.
        let cost = nanos.checked_div(self.rate.per_second.max(1).into()).unwrap_or(0);
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    /// Reserves `amount` units, and returns when they may start.
    fn reserve(&self, now: u64, amount: u64) -> u64 {
        let burst = self.rate.burst.max(1);
        // More than a burst needs the credit of a whole burst.
        let credit = self.cost(burst.saturating_sub(amount.min(burst)));
        let cost = self.cost(amount);
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        loop {
            let base = arrival.max(now);
            let after = base.saturating_add(cost);
            match self.arrival.compare_exchange_weak(
                arrival,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return base.saturating_sub(credit).max(now),
                Err(other) => arrival = other,
            }
        }
    }

    fn give_back(&self, amount: u64) {
        let cost = self.cost(amount);
        let subtract = |arrival: u64| Some(arrival.saturating_sub(cost));
        // Never refused: the closure always has a value.
        let _ = self.arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
    }
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
        loop {
            let reservation = limiter.reserve(now, bytes);
            now += limiter.wait(&reservation, now).unwrap_or_default();
            if now >= end {
                return passed;
            }
            passed += 1;
        }
    }

    /// Whether a request need not wait.
    fn passes(limiter: &RateLimiter, now: Instant, bytes: u64) -> bool {
        let reservation = limiter.reserve(now, bytes);
        limiter.wait(&reservation, now).is_none()
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
        assert!((0..5).all(|_| passes(&limiter, later, 0)));
        let sixth = limiter.reserve(later, 0);
        assert_eq!(limiter.wait(&sixth, later), Some(Duration::from_millis(100)));
        assert_eq!(limiter.wait(&sixth, later + Duration::from_millis(100)), None);
    }

    #[test]
    fn without_limits_everything_passes_and_absurd_ones_do_no_harm() {
        let none = limiter(None, None);
        assert!((0..MANY).all(|_| passes(&none, none.start, u64::MAX)));
        let zero = limiter(Some((0, 0)), None);
        assert!(passes(&zero, zero.start, 1));
        assert!(!passes(&zero, zero.start, 1));
        let huge = limiter(None, Some((u64::MAX, u64::MAX)));
        assert!((0..MANY).all(|_| passes(&huge, huge.start, 4096)));
        assert!(passes(&huge, huge.start, u64::MAX));
        assert!(!passes(&huge, huge.start, u64::MAX));
    }

    #[test]
    fn queues_share_what_there_is() {
        let limiter = limiter(Some((1, MANY)), None);
        let passed = std::thread::scope(|scope| {
            let count = || (0..MANY).filter(|_| passes(&limiter, limiter.start, 0)).count();
            let threads = [(); 4].map(|()| scope.spawn(count));
            threads.map(|thread| thread.join().unwrap() as u64).into_iter().sum::<u64>()
        });
        assert_eq!(passed, MANY);
    }

    #[test]
    fn a_turn_given_back_costs_nothing() {
        // Neither the request nor its bytes.
        for (ops, bytes, wait) in [(10, 10_000, 100), (100, 1000, 500)] {
            let limiter = limiter(Some((ops, 1)), Some((bytes, 1000)));
            let now = limiter.start;
            assert!(passes(&limiter, now, 1000));
            let waits = limiter.reserve(now, u64::from(u32::MAX));
            assert!(limiter.wait(&waits, now).is_some());
            limiter.give_back(waits);
            let next = limiter.reserve(now, 500);
            assert_eq!(limiter.wait(&next, now), Some(Duration::from_millis(wait)));
        }
    }

    /// The tokens of a bucket that one queue after the other takes from: what a limit should come to.
    struct Bucket {
        rate: f64,
        burst: f64,
        tokens: f64,
        at: f64,
    }

    impl Bucket {
        /// When `amount` may begin, which asks at `now`, after all that asked before.
        fn begin(&mut self, now: f64, amount: f64) -> f64 {
            let level = |at: f64| (self.tokens + (at - self.at) * self.rate).min(self.burst);
            let asked = now.max(self.at);
            let lacking = (amount.min(self.burst) - level(asked)).max(0.0);
            let begin = asked + lacking / self.rate;
            (self.tokens, self.at) = (level(begin) - amount, begin);
            begin
        }
    }

    /// Queues that each have one request after the other carried out, at once, as soon as it may be.
    /// When each began: the queue, the request's bytes, and the time.
    fn simulate(limiter: &RateLimiter, queues: &[Vec<(u64, u64)>]) -> Vec<(usize, u64, Duration)> {
        let start = limiter.start;
        let mut next = vec![0; queues.len()];
        // What each queue does next, and when: reserve, or begin.
        let mut due: Vec<Duration> = vec![Duration::ZERO; queues.len()];
        let mut reservations: Vec<Option<Reservation>> = queues.iter().map(|_| None).collect();
        let mut begun = Vec::new();
        loop {
            let ready = (0..queues.len()).filter(|&q| next[q] < queues[q].len());
            let Some(q) = ready.min_by_key(|&q| due[q]) else { return begun };
            let (pause, bytes) = queues[q][next[q]];
            let now = start + due[q];
            let reservation = reservations[q].take().unwrap_or_else(|| limiter.reserve(now, bytes));
            if let Some(wait) = limiter.wait(&reservation, now) {
                due[q] += wait;
                reservations[q] = Some(reservation);
            } else {
                begun.push((q, bytes, due[q]));
                due[q] += Duration::from_millis(pause);
                next[q] += 1;
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "thousands of requests on one thread take long")]
    fn large_requests_are_not_starved_by_small_ones_of_another_queue() {
        let limiter = limiter(None, Some((1 << 20, 1 << 20)));
        let small = vec![(0, 4096); 20_000];
        let large = vec![(0, 1 << 20); 30];
        let begun = simulate(&limiter, &[small, large]);
        let minute = Duration::from_secs(60);
        let larges = begun.iter().filter(|(queue, _, at)| *queue == 1 && *at < minute);
        assert_eq!(larges.count(), 30, "each waits for itself and one small request");
    }

    mod properties {
        use proptest::prelude::*;

        use super::*;

        fn queue() -> impl Strategy<Value = Vec<(u64, u64)>> {
            let bytes = prop_oneof![Just(0u64), 1..=4096u64, 1..=20_000u64];
            prop::collection::vec((prop_oneof![Just(0u64), 0..3000u64], bytes), 0..20)
        }

        proptest! {
            #![proptest_config(ProptestConfig {
                cases: if cfg!(miri) { 2 } else { 256 },
                failure_persistence: None,
                ..ProptestConfig::default()
            })]

            #[test]
            fn a_limit_is_a_bucket_of_tokens_served_in_order(
                rate in 1..100_000u64,
                burst in 1..10_000u64,
                asks in prop::collection::vec((0..2000u64, 0..20_000u64), 1..40),
            ) {
                let limiter = limiter(None, Some((rate, burst)));
                let (rate, burst) = (rate as f64, burst as f64);
                let mut bucket = Bucket { rate, burst, tokens: burst, at: 0.0 };
                let mut now = Duration::ZERO;
                for (pause, bytes) in asks {
                    now += Duration::from_millis(pause);
                    let at = limiter.start + now;
                    let reservation = limiter.reserve(at, bytes);
                    let begins = now + limiter.wait(&reservation, at).unwrap_or_default();
                    let expected = bucket.begin(now.as_secs_f64(), bytes as f64);
                    let error = (begins.as_secs_f64() - expected).abs();
                    prop_assert!(error < 1e-6, "{begins:?}, not {expected} s");
                }
            }

            #[test]
            fn no_queue_waits_for_more_than_one_request_of_each_other(
                rate in 1000..100_000u64,
                queues in prop::collection::vec(queue(), 1..5),
            ) {
                let limiter = limiter(None, Some((rate, 4096)));
                let begun = simulate(&limiter, &queues);
                let total: usize = queues.iter().map(Vec::len).sum();
                prop_assert_eq!(begun.len(), total);
                let greatest = queues.iter().flatten().map(|(_, bytes)| *bytes).max();
                let cost = (greatest.unwrap_or(0) * queues.len() as u64) as f64 / rate as f64;
                for (queue, requests) in queues.iter().enumerate() {
                    let times = begun.iter().filter(|(q, ..)| *q == queue).map(|(.., at)| *at);
                    let mut asked = Duration::ZERO;
                    for (at, (pause, _)) in times.zip(requests) {
                        let waited = (at - asked).as_secs_f64();
                        prop_assert!(waited <= cost + 1e-6, "{waited} s, {cost} s at most");
                        asked = at + Duration::from_millis(*pause);
                    }
                }
            }
        }
    }
}
