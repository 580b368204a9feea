use std::time::{Duration, Instant};

use super::crowding::Crowding;

/// How long a worker spins for new work before it sleeps: adaptive, between
/// [`MIN_SPIN`](Self::MIN_SPIN) and a maximum.
///
/// Sleeping and being woken costs the thread and the guest far more than checking the ring again. So
/// the time doubles when a sleep turns out to have been shorter than the maximum, and halves when it
/// was longer: an idle queue takes no CPU time.
///
/// That a sleep was short doesn't mean that spinning would have found the work: a driver that needs this very processor
/// submits it when the worker sleeps. So spinning has a credit, which is spent by time spun in vain, and earned by
/// finding work. Without it the worker only sleeps, and tries again after a while, which gets longer each time.
///
/// Nor does finding work by spinning mean that it should: others may wait for this processor meanwhile, such as the
/// thread of another queue, until the scheduler takes it from the worker. Where that happens, the worker only sleeps, for
/// longer each time that it happens again.
#[derive(Debug)]
pub struct Poller {
    max: Duration,
    budget: Duration,
    idle_since: Option<Instant>,
    slept_at: Option<Instant>,
    /// Sleeps since spinning last found work.
    failed_spins: u32,
    /// For how long spinning may still be in vain.
    credit: Duration,
    /// Sleeps until it is tried again after the credit was spent.
    rest: u32,
    /// How often it was tried since it last paid.
    rests: u32,
    crowding: Crowding,
    /// How often it had to give way since it last polled for long.
    crowded: u32,
    /// Work found by spinning since it last gave way.
    found: u32,
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
    /// What finding work by spinning saves: a sleep and a wake-up.
    const SAVED: Duration = Duration::from_micros(10);
    /// The most credit, and that of another try, as multiples of the maximum. Two are enough to double the time from
    /// nothing to the maximum.
    const CREDIT: u32 = 4;
    const TRY: u32 = 2;
    /// Each rest is longer than the one before by this shift, which is applied so often at most. A try costs what some
    /// requests cost: a queue that is never worth it is to have few of them in its first thousand requests, too.
    const REST_SHIFT: u32 = 2;
    const MAX_RESTS: u32 = 3;
    /// The first rest, in sleeps, after the processor was taken away, the factor to the next one as a shift, and how often
    /// it is applied. A try takes up to three slices of the scheduler, in which others wait.
    const CROWDED_REST: u32 = 256;
    const CROWDED_SHIFT: u32 = 2;
    const MAX_CROWDED: u32 = 5;
    /// The processor is no longer crowded after so much work was found by spinning, of at most 50 000 a slice.
    const UNCROWDED: u32 = 1 << 20;

    /// Spins for `max` at most. With [zero](Duration::ZERO) it never spins for longer than
    /// [`MIN_SPIN`](Self::MIN_SPIN).
    pub fn new(max: Duration) -> Self {
        Self::with_crowding(max, Crowding::new())
    }

    fn with_crowding(max: Duration, crowding: Crowding) -> Self {
        Self {
            max,
            budget: Duration::ZERO,
            idle_since: None,
            slept_at: None,
            failed_spins: 0,
            credit: max.saturating_mul(Self::CREDIT),
            rest: 0,
            rests: 0,
            crowding,
            crowded: 0,
            found: 0,
        }
    }

    /// There was work, at `now`.
    pub fn busy(&mut self, now: Instant) {
        let looked = self.idle_since.take().is_some();
        if looked && self.slept_at.is_none() {
            self.failed_spins = 0;
            self.found = self.found.saturating_add(1);
            if self.found == Self::UNCROWDED {
                self.crowded = 0;
            }
            let full = self.max.saturating_mul(Self::CREDIT);
            self.credit = self.credit.saturating_add(Self::SAVED).min(full);
            if self.credit == full {
                self.rests = 0;
            }
        }
        if let Some(slept_at) = self.slept_at.take()
            && self.rest == 0
        {
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
        if self.budget > Self::MIN_SPIN && self.crowding.is_found(now) {
            self.give_way();
            return false;
        }
        let spins = self.failed_spins < Self::MAX_FAILED_SPINS
            || self.failed_spins.is_multiple_of(Self::RETRY);
        let min_spin = if spins { Self::MIN_SPIN } else { Duration::ZERO };
        now.saturating_duration_since(since) < self.budget.max(min_spin)
    }

    /// The worker goes to sleep at `now`.
    pub fn sleeps(&mut self, now: Instant) {
        self.crowding.ends();
        let spun = self.idle_since.take().map(|since| now.saturating_duration_since(since));
        self.failed_spins = self.failed_spins.wrapping_add(1);
        if self.rest > 0 {
            self.rest = self.rest.saturating_sub(1);
        } else if self.budget > Self::MIN_SPIN {
            self.spend(spun.unwrap_or_default());
        }
        // After a spurious wake-up the sleep continues.
        self.slept_at.get_or_insert(now);
    }

    /// Others need this processor.
    #[cold]
    fn give_way(&mut self) {
        self.budget = Duration::ZERO;
        self.found = 0;
        self.rest = Self::CROWDED_REST << Self::CROWDED_SHIFT.saturating_mul(self.crowded);
        self.crowded = self.crowded.saturating_add(1).min(Self::MAX_CROWDED);
        self.crowding.ends();
    }

    /// So much time was spun in vain.
    fn spend(&mut self, spun: Duration) {
        self.credit = self.credit.saturating_sub(spun);
        if self.credit.is_zero() {
            self.budget = Duration::ZERO;
            self.credit = self.max.saturating_mul(Self::TRY);
            self.rest = Self::RETRY << Self::REST_SHIFT.saturating_mul(self.rests);
            self.rests = self.rests.saturating_add(1).min(Self::MAX_RESTS);
        }
    }

    /// Whether it spins at present, for longer than going to sleep takes.
    pub(crate) fn is_polling(&self) -> bool {
        self.rest == 0 && self.budget > Self::MIN_SPIN
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

    /// A driver that needs this processor: it submits its next request `gap` after the worker went to sleep. How long was
    /// polled for.
    fn in_its_way(poller: &mut Poller, gap: Duration, times: u32) -> Duration {
        let (mut now, mut polled) = (Instant::now(), Duration::ZERO);
        for _ in 0..times {
            poller.busy(now);
            while poller.idle(now) {
                now += Duration::from_nanos(500);
                polled += Duration::from_nanos(500);
            }
            poller.sleeps(now);
            now += gap;
        }
        polled
    }

    #[test]
    fn a_driver_that_needs_the_processor_is_not_kept_from_it_by_polling() {
        let mut poller = Poller::new(MAX);
        in_its_way(&mut poller, Duration::from_micros(20), 1000);
        let polled = in_its_way(&mut poller, Duration::from_micros(20), 10_000);
        assert!(polled < Duration::from_micros(20) * 10_000 / 50, "{polled:?}, more than 2 %");
    }

    #[test]
    fn polling_that_was_given_up_is_taken_up_where_it_pays_again() {
        let mut poller = Poller::new(MAX);
        in_its_way(&mut poller, Duration::from_micros(20), 2000);
        after(
            &mut poller,
            Duration::from_micros(20),
            Poller::RETRY << (Poller::REST_SHIFT * Poller::MAX_RESTS + 1),
        );
        let (_, sleeps) = after(&mut poller, Duration::from_micros(20), 1000);
        assert_eq!(sleeps, 0, "budget {:?}", poller.budget());
    }

    thread_local! {
        static SWITCHES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    /// Polling always finds work, and its processor is taken away every 4 ms. How often that was.
    fn in_a_crowd(poller: &mut Poller, requests: u32) -> u64 {
        let before = SWITCHES.get();
        let (mut now, mut slice) = (Instant::now(), Duration::ZERO);
        for _ in 0..requests {
            poller.busy(now);
            let next = now + Duration::from_micros(20);
            while now < next && poller.idle(now) {
                now += Duration::from_nanos(500);
                slice += Duration::from_nanos(500);
            }
            if now < next {
                poller.sleeps(now);
                // The others have it.
                (now, slice) = (next, Duration::ZERO);
            } else if slice > Duration::from_millis(4) {
                SWITCHES.set(SWITCHES.get() + 1);
                (now, slice) = (now + Duration::from_millis(4), Duration::ZERO);
            }
        }
        SWITCHES.get() - before
    }

    #[test]
    fn polling_that_keeps_others_from_the_processor_stops_though_it_finds_work() {
        let mut poller = Poller::with_crowding(MAX, Crowding::with_source(|| SWITCHES.get()));
        let early = in_a_crowd(&mut poller, 50_000);
        assert!(early <= 18, "{early} slices");
        let late = in_a_crowd(&mut poller, 100_000);
        assert!(late <= 9, "{late} slices");
    }

    #[test]
    fn a_processor_that_is_the_workers_own_is_polled_on() {
        let mut poller = Poller::with_crowding(MAX, Crowding::with_source(|| 7));
        after(&mut poller, Duration::from_micros(20), 10);
        let (_, sleeps) = after(&mut poller, Duration::from_micros(20), 10_000);
        assert_eq!(sleeps, 0);
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
