use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// Whether a thread that polls keeps others from its processor.
///
/// Such a thread always looks as if it had something to do. Others that share the processor, the one that it waits for
/// among them, wait until the scheduler takes it away, at the end of a slice of some milliseconds, and the kernel counts
/// that as an involuntary context switch. So these are looked at, by one system call a millisecond, while a thread polls
/// without ever sleeping. One alone says little, as the kernel's own threads need a processor now and then.
#[derive(Debug)]
pub(crate) struct Crowding {
    /// Involuntary context switches of this thread.
    switches: fn() -> u64,
    /// The last look, or when the thread began to poll.
    looked: Option<Instant>,
    /// What was counted then.
    counted: Option<u64>,
    /// Looks since the last one that found more switches than the one before; `None` if that is long ago.
    since: Option<u32>,
}

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(1);
/// So many looks between two switches are few: two threads that both poll have a slice each of some 4 ms.
const NEAR: u32 = 16;

impl Crowding {
    pub(crate) fn new() -> Self {
        Self::with_source(switches)
    }

    pub(crate) fn with_source(switches: fn() -> u64) -> Self {
        Self { switches, looked: None, counted: None, since: None }
    }

    /// The thread polls at `now`. Returns whether its processor was taken away lately, as others need it.
    #[inline]
    pub(crate) fn is_found(&mut self, now: Instant) -> bool {
        let looked = *self.looked.get_or_insert(now);
        now.saturating_duration_since(looked) >= INTERVAL && self.look(now)
    }

    #[cold]
    fn look(&mut self, now: Instant) -> bool {
        self.looked = Some(now);
        let count = (self.switches)();
        let more = self.counted.replace(count).is_some_and(|before| count > before);
        let again = more && self.since.is_some();
        self.since = match (more, self.since) {
            (true, _) => Some(0),
            (false, since) => {
                since.map(|since| since.saturating_add(1)).filter(|since| *since < NEAR)
            }
        };
        again
    }

    /// The thread sleeps, which leaves the processor to others.
    pub(crate) fn ends(&mut self) {
        (self.looked, self.counted, self.since) = (None, None, None);
    }
}

fn switches() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD);
    let count = usage.map(|usage| usage.involuntary_context_switches());
    count.ok().and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_once_a_millisecond_while_a_thread_polls_and_never_sleeps() {
        let (mut crowding, start) = (Crowding::with_source(|| 3), Instant::now());
        let at = |micros| start + Duration::from_micros(micros);
        assert!((0..1000).all(|micros| !crowding.is_found(at(micros))));
        assert_eq!(crowding.counted, None, "no system call so far");
        assert!(!crowding.is_found(at(1000)));
        assert_eq!(crowding.counted, Some(3));
        crowding.switches = || 4;
        assert!(!crowding.is_found(at(1999)));
        assert!(!crowding.is_found(at(2000)), "one alone");
        crowding.switches = || 5;
        assert!(crowding.is_found(at(10_000)));
        crowding.ends();
        crowding.switches = || 6;
        assert!(!crowding.is_found(at(11_000)) && !crowding.is_found(at(12_000)));
    }

    #[test]
    fn a_processor_that_is_taken_away_now_and_then_is_not_crowded() {
        thread_local! {
            static COUNT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
        }
        let (mut crowding, start) = (Crowding::with_source(|| COUNT.get()), Instant::now());
        for millis in 0..1000 {
            COUNT.set(millis / 40);
            assert!(!crowding.is_found(start + Duration::from_millis(millis)));
        }
    }

    #[test]
    fn the_kernel_counts_how_often_a_thread_was_preempted() {
        let before = switches();
        assert!(switches() >= before);
    }
}
