use std::fmt;

pub const SECTOR: usize = 512;
pub const SECTORS: u64 = 8;

/// A sector of the disk.
pub type Sector = [u8; SECTOR];

/// What happened, in the order of one clock for image and guest.
pub enum Event {
    /// The storage took new contents, from this sector on, each of which may be lost for as long as
    /// no flush follows, by itself.
    Change { sector: usize, contents: Vec<Sector> },
    /// The storage has made stable all that it took.
    Flush,
    /// It could not.
    FailedFlush,
    /// The driver made the request of this number available.
    Asked(usize),
    /// The driver saw it used.
    Answered(usize, bool),
    /// The driver wrote `writeback`.
    Switched(bool),
    /// Nothing was left to do, for the worker or the engine.
    Idle,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change { sector, contents } => write!(f, "Change({sector}, {})", contents.len()),
            Self::Flush => f.write_str("Flush"),
            Self::FailedFlush => f.write_str("FailedFlush"),
            Self::Asked(nth) => write!(f, "Asked({nth})"),
            Self::Answered(nth, ok) => write!(f, "Answered({nth}, {ok})"),
            Self::Switched(on) => write!(f, "Switched({on})"),
            Self::Idle => f.write_str("Idle"),
        }
    }
}

/// What a request leaves in its sectors.
#[derive(Clone, Debug)]
pub enum Leaves {
    /// This, in each.
    Sector(Box<Sector>),
    /// Nothing that the driver may assume.
    Anything,
}

/// A request of the guest.
#[derive(Clone, Debug)]
pub enum Request {
    Change { sectors: Vec<usize>, leaves: Leaves },
    Flush,
}

/// The whole of it.
pub struct Log {
    pub initial: Vec<Sector>,
    pub events: Vec<Event>,
    pub requests: Vec<Request>,
    /// The driver can't flush, and hasn't been told of a cache.
    pub write_through: bool,
    /// `writeback` at first, if there is one.
    pub writeback: Option<bool>,
}

/// A change, and when the guest learnt what of it: positions in the log.
struct Change<'a> {
    sectors: &'a [usize],
    leaves: &'a Leaves,
    asked: usize,
    answered: Option<usize>,
    /// The answer was good.
    ok: bool,
    /// There was no cache all the time until then.
    through: bool,
}

/// From `known` on the guest knows that all that was answered before `since` is stable.
struct Barrier {
    since: usize,
    known: usize,
}

impl Log {
    pub fn answers(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Answered(..))).count()
    }

    /// Cuts the power before each event, and after the last.
    pub fn check(&self) -> Result<(), String> {
        let (changes, barriers) = self.knowledge();
        // All that the storage may hold: what it has made stable, or anything it took since.
        let mut possible: Vec<Vec<Sector>> =
            self.initial.iter().map(|value| vec![*value]).collect();
        for cut in 0..=self.events.len() {
            for (sector, possible) in possible.iter().enumerate() {
                let Some(allowed) = self.allowed(&changes, &barriers, cut, sector) else {
                    continue;
                };
                if let Some(found) = possible.iter().find(|found| !allowed.contains(found)) {
                    return Err(format!(
                        "cut before event {cut}, sector {sector} may be {:x?}.. and not one of {}; \
                         before: {:?}",
                        &found[..4],
                        allowed.len(),
                        &self.events[cut.saturating_sub(12)..cut],
                    ));
                }
            }
            match self.events.get(cut) {
                Some(Event::Change { sector, contents }) => {
                    for (possible, content) in possible[*sector..].iter_mut().zip(contents) {
                        possible.push(*content);
                    }
                }
                Some(Event::Flush) => {
                    possible.iter_mut().for_each(|values| drop(values.drain(..values.len() - 1)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What the guest may find in a sector; `None` is anything.
    fn allowed<'a>(
        &'a self,
        changes: &[Change<'a>],
        barriers: &[Barrier],
        cut: usize,
        sector: usize,
    ) -> Option<Vec<&'a Sector>> {
        let stable = |change: &&Change<'_>| {
            change.answered.is_some_and(|answered| {
                let flushed = |barrier: &Barrier| barrier.known < cut && answered < barrier.since;
                change.ok && answered < cut && (change.through || barriers.iter().any(flushed))
            })
        };
        let here = || {
            changes.iter().filter(|change| change.asked < cut && change.sectors.contains(&sector))
        };
        // The latest of the stable changes stands above all that was over before it was asked for.
        let above = here().filter(stable).map(|change| change.asked).max();
        let mut allowed = Vec::new();
        if above.is_none() {
            allowed.push(&self.initial[sector]);
        }
        let is_over = |change: &&Change<'_>| {
            above.is_some_and(|above| change.answered.is_some_and(|answered| answered < above))
        };
        for change in here().filter(|change| !is_over(change)) {
            match change.leaves {
                Leaves::Sector(content) => allowed.push(&**content),
                Leaves::Anything => return None,
            }
        }
        Some(allowed)
    }

    /// What the guest learns of its changes (virtio 1.2 §5.2.6.2).
    fn knowledge(&self) -> (Vec<Change<'_>>, Vec<Barrier>) {
        let position = |wanted: &dyn Fn(&Event) -> bool| self.events.iter().position(wanted);
        let (mut changes, mut barriers) = (Vec::new(), Vec::new());
        for (nth, request) in self.requests.iter().enumerate() {
            let asked = position(&|event| matches!(event, Event::Asked(n) if *n == nth)).unwrap();
            let answered = position(&|event| matches!(event, Event::Answered(n, _) if *n == nth));
            let ok = answered.is_some_and(|at| matches!(self.events[at], Event::Answered(_, true)));
            match (request, answered) {
                (Request::Change { sectors, leaves }, _) => changes.push(Change {
                    sectors,
                    leaves,
                    asked,
                    answered,
                    ok,
                    through: answered.is_some_and(|answered| self.was_through(asked, answered)),
                }),
                (Request::Flush, Some(known)) if ok => {
                    barriers.push(Barrier { since: asked, known });
                }
                (Request::Flush, _) => {}
            }
        }
        // The specification asks for less: a worker flushes when it learns that the cache is off,
        // unless the storage fails it.
        for (since, event) in self.events.iter().enumerate() {
            let after = &self.events[since..];
            if matches!(event, Event::Switched(false))
                && self.was_cached(since)
                && let Some(idle) = after.iter().position(|event| matches!(event, Event::Idle))
                && !after[1..idle]
                    .iter()
                    .any(|event| matches!(event, Event::FailedFlush | Event::Switched(_)))
            {
                barriers.push(Barrier { since, known: since + idle });
            }
        }
        (changes, barriers)
    }

    /// Whether the cache was on before the event at `at`.
    fn was_cached(&self, at: usize) -> bool {
        let switched = self.events[..at].iter().rev().find_map(|event| match event {
            Event::Switched(on) => Some(*on),
            _ => None,
        });
        switched.or(self.writeback).unwrap_or(!self.write_through)
    }

    /// Whether there was no cache all the time between these.
    fn was_through(&self, asked: usize, answered: usize) -> bool {
        let during = &self.events[asked..answered];
        !self.was_cached(asked) && !during.iter().any(|event| matches!(event, Event::Switched(_)))
    }
}
