use std::time::{Duration, Instant};

/// How long a worker spins for new work before it sleeps: adaptive, between
/// [`MIN_SPIN`](Self::MIN_SPIN) and a maximum.
///
/// Sleeping and being woken costs the thread and the guest far more than checking the ring again. So
/// the time doubles when a sleep turns out to have been shorter than the maximum, and halves when it
/// was longer: an idle queue takes no CPU time.
#[derive(Debug)]
pub struct Poller {
    max: Duration,
    budget: Duration,
    idle_since: Option<Instant>,
    slept_at: Option<Instant>,
    /// Sleeps since spinning last found work.
    failed_spins: u32,
}

impl Poller {
    /// The time to spin even without polling: about what going to sleep costs, for a driver that
    /// submits its next request at once. After several spins in a row without
    /// work, as when the driver needs this very processor, it is tried only now and then.
    pub const MIN_SPIN: Duration = Duration::from_micros(2);
    /// The first step up from zero.
    const FIRST: Duration = Duration::from_micros(4);
    /// After so many spins in a row without work, [`MIN_SPIN`](Self::MIN_SPIN) is skipped.
    const MAX_FAILED_SPINS: u32 = 8;
    /// It is still tried once in so many sleeps.
    const RETRY: u32 = 64;

    /// Spins for `max` at most. With [zero](Duration::ZERO) it never spins for longer than
    /// [`MIN_SPIN`](Self::MIN_SPIN).
    pub fn new(max: Duration) -> Self {
        Self { max, budget: Duration::ZERO, idle_since: None, slept_at: None, failed_spins: 0 }
    }

    /// There was work, at `now`.
    pub fn busy(&mut self, now: Instant) {
        let looked = self.idle_since.take().is_some();
        if looked && self.slept_at.is_none() {
            self.failed_spins = 0;
        }
        if let Some(slept_at) = self.slept_at.take() {
            // Whether spinning up to the maximum would have found this work.
            self.budget = if now.saturating_duration_since(slept_at) <= self.max {
                self.budget.saturating_mul(2).clamp(Self::FIRST.min(self.max), self.max)
            } else {
                self.budget.checked_div(2).unwrap_or_default()
            };
        }
    }

    /// There was no work at `now`. Returns whether to check again rather than to sleep.
    pub fn idle(&mut self, now: Instant) -> bool {
        let since = *self.idle_since.get_or_insert(now);
        let spins = self.failed_spins < Self::MAX_FAILED_SPINS
            || self.failed_spins.is_multiple_of(Self::RETRY);
        let min_spin = if spins { Self::MIN_SPIN } else { Duration::ZERO };
        now.saturating_duration_since(since) < self.budget.max(min_spin)
    }

    /// The worker goes to sleep at `now`.
    pub fn sleeps(&mut self, now: Instant) {
        self.idle_since = None;
        self.failed_spins = self.failed_spins.wrapping_add(1);
        // After a spurious wake-up the sleep continues.
        self.slept_at.get_or_insert(now);
    }

    /// How long it spins at present.
    pub fn budget(&self) -> Duration {
        self.budget
    }
}

// Long, and nothing for Miri in them.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(50);

    /// A request comes `gap` after the last, `times` over; how long was polled for.
    fn after(poller: &mut Poller, gap: Duration, times: u32) -> (Duration, u32) {
        let mut now = Instant::now();
        let (mut polled, mut sleeps) = (Duration::ZERO, 0);
        for _ in 0..times {
            poller.busy(now);
            let next = now + gap;
            while now < next {
                if poller.idle(now) {
                    now += Duration::from_nanos(500);
                    polled += Duration::from_nanos(500);
                } else {
                    poller.sleeps(now);
                    sleeps += 1;
                    now = next;
                }
            }
        }
        (polled, sleeps)
    }

    #[test]
    fn a_busy_queue_is_polled_and_not_slept_on() {
        let mut poller = Poller::new(MAX);
        after(&mut poller, Duration::from_micros(20), 10);
        let (_, sleeps) = after(&mut poller, Duration::from_micros(20), 100);
        assert_eq!(sleeps, 0, "budget {:?}", poller.budget());
    }

    #[test]
    fn an_idle_queue_spins_for_the_minimum_only() {
        let mut poller = Poller::new(MAX);
        after(&mut poller, Duration::from_micros(20), 10);
        after(&mut poller, Duration::from_millis(10), 10);
        assert!(poller.budget() < Poller::MIN_SPIN, "{:?}", poller.budget());
        let (polled, sleeps) = after(&mut poller, Duration::from_millis(10), 640);
        assert_eq!(sleeps, 640);
        assert!(polled <= Poller::MIN_SPIN * 20, "{polled:?}");
    }

    #[test]
    fn the_time_is_bounded_and_can_be_none() {
        let mut poller = Poller::new(MAX);
        after(&mut poller, Duration::from_micros(45), 1000);
        assert!(poller.budget() <= MAX);
        let mut never = Poller::new(Duration::ZERO);
        let (polled, sleeps) = after(&mut never, Duration::from_micros(20), 100);
        assert_eq!((never.budget(), sleeps), (Duration::ZERO, 100));
        assert!(polled <= Poller::MIN_SPIN * 101);
    }

    #[test]
    fn lingering_is_given_up_where_it_is_failed_spins_and_taken_up_where_it_pays() {
        let mut poller = Poller::new(Duration::ZERO);
        after(&mut poller, Duration::from_micros(20), 100);
        let (polled, _) = after(&mut poller, Duration::from_micros(20), 64);
        assert!(polled <= Poller::MIN_SPIN * 2, "{polled:?} without work");
        // The driver answers at once again: found out within some sleeps, and kept.
        after(&mut poller, Duration::from_micros(1), 70);
        let (_, sleeps) = after(&mut poller, Duration::from_micros(1), 1000);
        assert_eq!(sleeps, 0);
    }
}
