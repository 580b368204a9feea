//! What could not be done is tried again, with growing pauses.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// libxl waits 10 s for a backend: several attempts fit in.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// Tasks that have failed, and when each is due again.
#[derive(Debug)]
pub(crate) struct Retries<T>(BTreeMap<T, Attempt>);

#[derive(Debug)]
struct Attempt {
    /// `None`: it is under way.
    due: Option<Instant>,
    pause: Duration,
}

impl<T: Ord + Copy> Retries<T> {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The task is to be tried again. True if it had not failed before.
    pub(crate) fn failed(&mut self, task: T, now: Instant) -> bool {
        let first = !self.0.contains_key(&task);
        let pause = self.0.get(&task).map_or(FIRST, |last| LONGEST.min(last.pause * 2));
        self.0.insert(task, Attempt { due: Some(now + pause), pause });
        first
    }

    /// The task was done. True if it had failed before.
    pub(crate) fn done(&mut self, task: T) -> bool {
        self.0.remove(&task).is_some()
    }

    /// What is to be tried now. It is under way until it has [failed](Self::failed) or is [done](Self::done).
    pub(crate) fn due(&mut self, now: Instant) -> Vec<T> {
        let due =
            self.0.iter_mut().filter(|(_, attempt)| attempt.due.is_some_and(|due| due <= now));
        due.map(|(task, attempt)| {
            attempt.due = None;
            *task
        })
        .collect()
    }

    /// Whether the task is to be tried at some time, and not before.
    pub(crate) fn is_scheduled(&self, task: T) -> bool {
        self.0.get(&task).is_some_and(|attempt| attempt.due.is_some())
    }

    /// How long nothing is due; `None` if nothing has failed.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.0
            .values()
            .filter_map(|attempt| attempt.due)
            .map(|due| due.saturating_duration_since(now))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute_and_begin_anew_after_success() {
        let start = Instant::now();
        let mut retries = Retries::new();
        assert_eq!(retries.wait(start), None);
        let mut pauses = Vec::new();
        for round in 0..11 {
            assert_eq!(retries.failed(7, start), round == 0);
            pauses.push(retries.wait(start).unwrap().as_millis());
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[9..], [30_000, 30_000]);
        assert!(retries.due(start + Duration::from_secs(29)).is_empty());
        assert!(retries.is_scheduled(7));
        assert_eq!(retries.due(start + Duration::from_secs(30)), [7]);
        assert!(!retries.is_scheduled(7) && retries.wait(start).is_none(), "it is under way");
        assert!(retries.done(7) && !retries.done(7));
        assert!(retries.failed(7, start));
        assert_eq!(retries.wait(start), Some(FIRST));
    }
}
