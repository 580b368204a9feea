use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const BURST: u32 = 8;
const PERIOD: Duration = Duration::from_secs(60);

/// At most eight lines of each kind of message in a minute from the first of them, of all its clones
/// together; the rest is counted.
///
/// The place in the source that asks is the kind. So no message can use up the allowance of
/// another: after a flood of failed reads, the one line on a broken ring is still logged.
/// ```
/// # use virtio_worker::LogLimit;
/// let limit = LogLimit::new();
/// # let error = "";
/// if let Some(dropped) = limit.allow() {
///     eprintln!("a request failed: {error} ({dropped} more were not logged)");
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct LogLimit(Arc<Mutex<Vec<Allowance>>>);

/// What is left for the messages of one place in the source.
#[derive(Debug)]
struct Allowance {
    place: &'static Location<'static>,
    since: Instant,
    lines: u32,
    dropped: u64,
}

impl LogLimit {
    /// Fresh allowances.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the caller may log a line now; if so, how many of its lines were not logged since
    /// the last one.
    #[track_caller]
    pub fn allow(&self) -> Option<u64> {
        self.allow_at(Location::caller(), Instant::now())
    }

    fn allow_at(&self, place: &'static Location<'static>, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // There are as many as calls of `allow` in the source, a handful.
        if let Some(kind) = kinds.iter_mut().find(|kind| kind.place == place) {
            return kind.allow_at(now);
        }
        kinds.push(Allowance { place, since: now, lines: 1, dropped: 0 });
        Some(0)
    }
}

impl Allowance {
    fn allow_at(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= PERIOD {
            self.since = now;
            self.lines = 0;
        }
        if self.lines == BURST {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.lines = self.lines.saturating_add(1);
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let (limit, place, start) = (LogLimit::new(), Location::caller(), Instant::now());
        let allowed = (0..100).filter_map(|_| limit.allow_at(place, start)).count();
        assert_eq!(allowed, 8);
        assert_eq!(limit.allow_at(place, start + PERIOD), Some(92));
    }

    #[test]
    fn clones_share_one_allowance() {
        let limit = LogLimit::new();
        assert_eq!((0..100).filter_map(|_| limit.clone().allow()).count(), 8);
    }

    #[test]
    fn a_flood_of_one_kind_of_message_hides_no_other() {
        let limit = LogLimit::new();
        let failed_read = || limit.allow();
        let broken_ring = || limit.allow();
        assert_eq!((0..100).filter_map(|_| failed_read()).count(), 8);
        assert_eq!(broken_ring(), Some(0));
    }
}
