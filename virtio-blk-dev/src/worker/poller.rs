use std::time::{Duration, Instant};

/// How long a worker looks for work before it falls asleep: adapted to what it finds, between
/// [`LINGER`](Self::LINGER) and a bound.
///
/// Falling asleep and being woken costs the thread and the guest far more than looking again. So
/// the time grows while sleeps turn out to be shorter than the bound, and shrinks as soon as they
/// don't: an idle queue costs no CPU.
#[derive(Debug)]
pub struct Poller {
    max: Duration,
    budget: Duration,
    idle_since: Option<Instant>,
    slept_at: Option<Instant>,
    /// Sleeps since looking again last found something.
    in_vain: u32,
}

impl Poller {
    /// What is looked for even without polling: about what falling asleep costs, so that a driver
    /// that answers at once isn't met half asleep. Where that was in vain for some time, as it is
    /// when the driver needs this very processor, it is tried only now and then.
    pub const LINGER: Duration = Duration::from_micros(2);
    /// Where growing begins.
    const FIRST: Duration = Duration::from_micros(4);
    /// So many sleeps in a row, and lingering is in vain.
    const IN_VAIN: u32 = 8;
    /// One in so many is tried all the same.
    const RETRY: u32 = 64;

    /// Polls for `max` at most; [zero](Duration::ZERO) is never, but for [`LINGER`](Self::LINGER).
    pub fn new(max: Duration) -> Self {
        Self { max, budget: Duration::ZERO, idle_since: None, slept_at: None, in_vain: 0 }
    }

    /// There was work.
    pub fn busy(&mut self, now: Instant) {
        let looked = self.idle_since.take().is_some();
        if looked && self.slept_at.is_none() {
            self.in_vain = 0;
        }
        if let Some(slept_at) = self.slept_at.take() {
            // Had it polled, it would have found this, or it wouldn't have.
            self.budget = if now.saturating_duration_since(slept_at) <= self.max {
                self.budget.saturating_mul(2).clamp(Self::FIRST.min(self.max), self.max)
            } else {
                self.budget.checked_div(2).unwrap_or_default()
            };
        }
    }

    /// There was none: whether to look again rather than to sleep.
    pub fn idle(&mut self, now: Instant) -> bool {
        let since = *self.idle_since.get_or_insert(now);
        let lingers = self.in_vain < Self::IN_VAIN || self.in_vain.is_multiple_of(Self::RETRY);
        let linger = if lingers { Self::LINGER } else { Duration::ZERO };
        now.saturating_duration_since(since) < self.budget.max(linger)
    }

    /// The worker falls asleep.
    pub fn sleeps(&mut self, now: Instant) {
        self.idle_since = None;
        self.in_vain = self.in_vain.wrapping_add(1);
        // Woken for nothing, it goes on with the same sleep.
        self.slept_at.get_or_insert(now);
    }

    /// How long it polls at present.
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
    fn an_idle_queue_costs_nothing_but_the_linger() {
        let mut poller = Poller::new(MAX);
        after(&mut poller, Duration::from_micros(20), 10);
        after(&mut poller, Duration::from_millis(10), 10);
        assert!(poller.budget() < Poller::LINGER, "{:?}", poller.budget());
        let (polled, sleeps) = after(&mut poller, Duration::from_millis(10), 640);
        assert_eq!(sleeps, 640);
        assert!(polled <= Poller::LINGER * 20, "{polled:?}");
    }

    #[test]
    fn the_time_is_bounded_and_can_be_none() {
        let mut poller = Poller::new(MAX);
        after(&mut poller, Duration::from_micros(45), 1000);
        assert!(poller.budget() <= MAX);
        let mut never = Poller::new(Duration::ZERO);
        let (polled, sleeps) = after(&mut never, Duration::from_micros(20), 100);
        assert_eq!((never.budget(), sleeps), (Duration::ZERO, 100));
        assert!(polled <= Poller::LINGER * 101);
    }

    #[test]
    fn lingering_is_given_up_where_it_is_in_vain_and_taken_up_where_it_pays() {
        let mut poller = Poller::new(Duration::ZERO);
        after(&mut poller, Duration::from_micros(20), 100);
        let (polled, _) = after(&mut poller, Duration::from_micros(20), 64);
        assert!(polled <= Poller::LINGER * 2, "{polled:?} in vain");
        // The driver answers at once again: found out within some sleeps, and kept.
        after(&mut poller, Duration::from_micros(1), 70);
        let (_, sleeps) = after(&mut poller, Duration::from_micros(1), 1000);
        assert_eq!(sleeps, 0);
    }
}
