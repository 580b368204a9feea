use super::*;
use crate::Rate;

fn limits(ops: Option<(u64, u64)>, bytes: Option<(u64, u64)>) -> Arc<ActiveLimits> {
    let rate = |(per_second, burst)| Rate { per_second, burst };
    let limits = RateLimits { ops: ops.map(rate), bytes: bytes.map(rate) };
    Arc::new(ActiveLimits::new(&limits).unwrap())
}

/// How long a reservation made at `now` has to wait.
fn wait(reservation: Option<&Reservation>, now: Instant) -> Duration {
    reservation.and_then(|reservation| reservation.wait(now)).unwrap_or_default()
}

/// How many requests of `bytes` pass within `seconds` of a clock that waits as it is told.
fn passed(limits: &Arc<ActiveLimits>, bytes: u64, seconds: u64) -> u64 {
    let mut now = limits.start;
    let end = now + Duration::from_secs(seconds);
    let mut passed = 0;
    loop {
        now += wait(limits.reserve(now, bytes).as_ref(), now);
        if now >= end {
            return passed;
        }
        passed += 1;
    }
}

/// Whether a request need not wait.
fn passes(limits: &Arc<ActiveLimits>, now: Instant, bytes: u64) -> bool {
    limits.reserve(now, bytes).is_none()
}

/// So many requests at once.
const MANY: u64 = if cfg!(miri) { 40 } else { 1000 };

#[test]
#[cfg_attr(miri, ignore = "thousands of requests on one thread take long")]
fn a_burst_passes_at_once_and_then_the_rate() {
    assert_eq!(passed(&limits(Some((100, 10)), None), 4096, 10), 10 + 1000 - 1);
    let bytes = passed(&limits(None, Some((1 << 20, 1 << 20))), 4096, 10);
    assert!((2800..=2817).contains(&bytes), "{bytes}: 11 MiB in 4 KiB requests");
}

#[test]
fn the_tighter_limit_counts() {
    let both = limits(Some((100, 1)), Some((4096 * 10, 4096)));
    assert!((100..=101).contains(&passed(&both, 4096, 10)));
    let both = limits(Some((10, 1)), Some((4096 * 100, 4096)));
    assert!((100..=101).contains(&passed(&both, 4096, 10)));
}

#[test]
fn a_request_larger_than_the_burst_passes_and_is_paid_for() {
    let limits = limits(None, Some((1 << 20, 4096)));
    let passed = passed(&limits, 1 << 20, 10);
    assert!((10..=11).contains(&passed), "{passed}");
}

#[test]
fn what_was_not_used_is_kept_up_to_the_burst() {
    let limits = limits(Some((10, 5)), None);
    let later = limits.start + Duration::from_secs(3600);
    assert!((0..5).all(|_| passes(&limits, later, 0)));
    let sixth = limits.reserve(later, 0);
    assert_eq!(wait(sixth.as_ref(), later), Duration::from_millis(100));
    assert_eq!(wait(sixth.as_ref(), later + Duration::from_millis(100)), Duration::ZERO);
}

#[test]
fn absurd_limits_do_no_harm() {
    let zero = limits(Some((0, 0)), None);
    assert!(passes(&zero, zero.start, 1));
    assert!(!passes(&zero, zero.start, 1));
    let huge = limits(None, Some((u64::MAX, u64::MAX)));
    assert!((0..MANY).all(|_| passes(&huge, huge.start, 4096)));
    assert!(passes(&huge, huge.start, u64::MAX));
    assert!(!passes(&huge, huge.start, u64::MAX));
}

#[test]
fn queues_share_what_there_is() {
    let limits = limits(Some((1, MANY)), None);
    let passed = std::thread::scope(|scope| {
        let count = || (0..MANY).filter(|_| passes(&limits, limits.start, 0)).count();
        let threads = [(); 4].map(|()| scope.spawn(count));
        threads.map(|thread| thread.join().unwrap() as u64).into_iter().sum::<u64>()
    });
    assert_eq!(passed, MANY);
}

#[test]
fn a_turn_given_back_costs_nothing() {
    // Neither the request nor its bytes.
    for (ops, bytes, millis) in [(10, 10_000, 100), (100, 1000, 500)] {
        let limits = limits(Some((ops, 1)), Some((bytes, 1000)));
        let now = limits.start;
        assert!(passes(&limits, now, 1000));
        let waits = limits.reserve(now, u64::from(u32::MAX)).unwrap();
        assert_eq!(waits.give_back(), u64::from(u32::MAX));
        let next = limits.reserve(now, 500);
        assert_eq!(wait(next.as_ref(), now), Duration::from_millis(millis));
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
fn simulate(limits: &Arc<ActiveLimits>, queues: &[Vec<(u64, u64)>]) -> Vec<(usize, u64, Duration)> {
    let start = limits.start;
    let mut next = vec![0; queues.len()];
    // What each queue does next, and when: reserve, or begin.
    let mut due: Vec<Duration> = vec![Duration::ZERO; queues.len()];
    let mut delayed: Vec<Option<Reservation>> = queues.iter().map(|_| None).collect();
    let mut begun = Vec::new();
    loop {
        let ready = (0..queues.len()).filter(|&q| next[q] < queues[q].len());
        let Some(q) = ready.min_by_key(|&q| due[q]) else { return begun };
        let (pause, bytes) = queues[q][next[q]];
        let now = start + due[q];
        let reservation = delayed[q].take().or_else(|| limits.reserve(now, bytes));
        let left = wait(reservation.as_ref(), now);
        if left > Duration::ZERO {
            due[q] += left;
            delayed[q] = reservation;
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
    let limits = limits(None, Some((1 << 20, 1 << 20)));
    let small = vec![(0, 4096); 20_000];
    let large = vec![(0, 1 << 20); 30];
    let begun = simulate(&limits, &[small, large]);
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
            let limits = limits(None, Some((rate, burst)));
            let (rate, burst) = (rate as f64, burst as f64);
            let mut bucket = Bucket { rate, burst, tokens: burst, at: 0.0 };
            let mut now = Duration::ZERO;
            for (pause, bytes) in asks {
                now += Duration::from_millis(pause);
                let at = limits.start + now;
                let begins = now + wait(limits.reserve(at, bytes).as_ref(), at);
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
            let limits = limits(None, Some((rate, 4096)));
            let begun = simulate(&limits, &queues);
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
