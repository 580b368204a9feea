//! What the project wants to reach, as ratios between devices under the same load.

use crate::cell::Op;
use crate::quartiles::Quartiles;
use crate::results::Results;
use crate::task::Task;
use crate::window::Metrics;

const OURS: [&str; 2] = ["vhost-user-blk/io_uring", "vhost-user-blk/sync"];
const QEMU: &str = "qemu-storage-daemon/io_uring";
const PREAD: &str = "raw/pread";

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    device: &'static str,
    regime: &'static str,
    op: Op,
    bytes: u32,
    depth: u16,
    queues: u16,
}

impl Place {
    pub(crate) fn is(&self, task: &Task) -> bool {
        let Task { subject, cell } = task;
        (self.op, self.bytes, self.depth, self.queues)
            == (cell.op, cell.bytes, cell.depth, cell.queues)
            && self.regime == task.regime()
            && self.device == subject.to_string()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A ratio that our device is to reach.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    name: &'static str,
    metric: fn(&Metrics) -> f64,
    /// Where ours is measured; its device is any of [`OURS`].
    ours: Place,
    peer: Place,
    bound: Bound,
}

/// A target and what was reached, with one of our engines.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) name: &'static str,
    pub(crate) device: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) bound: String,
    /// `None` if no repetition has a window of both.
    pub(crate) reached: Option<Reached>,
}

/// What the ratios of the two windows of each repetition say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reached {
    pub(crate) ratio: Quartiles,
    /// Repetitions that have a window of both.
    pub(crate) n: usize,
    pub(crate) met: bool,
}

/// Reads with one queue.
const fn at(device: &'static str, regime: &'static str, bytes: u32, depth: u16) -> Place {
    Place { device, regime, op: Op::Read, bytes, depth, queues: 1 }
}

/// How many times a peer's processor time, latency or bandwidth ours may or has to be.
pub(crate) const TARGETS: [Target; 9] = [
    Target {
        name: "CPU per 4 KiB read, QD 32, device polls",
        metric: |metrics| metrics.cpu_us_per_request,
        ours: at(OURS[0], "polls/spins", 4096, 32),
        peer: at(PREAD, "one thread", 4096, 32),
        bound: Bound::AtMost(1.10),
    },
    Target {
        name: "CPU per 4 KiB write, QD 32, device polls",
        metric: |metrics| metrics.cpu_us_per_request,
        ours: Place { op: Op::Write, ..at(OURS[0], "polls/spins", 4096, 32) },
        peer: Place { op: Op::Write, ..at(PREAD, "one thread", 4096, 32) },
        bound: Bound::AtMost(1.10),
    },
    Target {
        name: "p50 of 4 KiB reads, QD 1, client spins, device polls",
        metric: |metrics| metrics.p50_us,
        ours: at(OURS[0], "polls/spins", 4096, 1),
        peer: at(PREAD, "one thread", 4096, 1),
        bound: Bound::AtMost(1.40),
    },
    Target {
        name: "p50 of 4 KiB reads, QD 1, client spins, device polls",
        metric: |metrics| metrics.p50_us,
        ours: at(OURS[0], "polls/spins", 4096, 1),
        peer: at(QEMU, "polls/spins", 4096, 1),
        bound: Bound::AtMost(0.33),
    },
    Target {
        name: "p50 of 4 KiB reads, QD 1, client spins, nobody polls",
        metric: |metrics| metrics.p50_us,
        ours: at(OURS[0], "quiet/spins", 4096, 1),
        peer: at(QEMU, "quiet/spins", 4096, 1),
        bound: Bound::AtMost(1.0),
    },
    Target {
        name: "p50 of 4 KiB reads, QD 1, client sleeps, nobody polls",
        metric: |metrics| metrics.p50_us,
        ours: at(OURS[0], "quiet/sleeps", 4096, 1),
        peer: at(QEMU, "quiet/sleeps", 4096, 1),
        bound: Bound::AtMost(0.95),
    },
    Target {
        name: "CPU per 4 KiB read, QD 1, client sleeps, nobody polls",
        metric: |metrics| metrics.cpu_us_per_request,
        ours: at(OURS[0], "quiet/sleeps", 4096, 1),
        peer: at(QEMU, "quiet/sleeps", 4096, 1),
        bound: Bound::AtMost(0.80),
    },
    Target {
        name: "bandwidth of sequential 128 KiB reads, QD 32, device polls",
        metric: |metrics| metrics.mb_per_s,
        ours: at(OURS[0], "polls/spins", 128 << 10, 32),
        peer: at(PREAD, "one thread", 128 << 10, 32),
        bound: Bound::AtLeast(0.97),
    },
    Target {
        name: "p99.9 of 4 KiB reads, QD 32 over 2 queues, device polls",
        metric: |metrics| metrics.p999_us,
        ours: Place { queues: 2, ..at(OURS[0], "polls/spins", 4096, 32) },
        peer: Place { queues: 2, ..at(QEMU, "polls/spins", 4096, 32) },
        bound: Bound::AtMost(1.0),
    },
];

impl Target {
    /// Every row that the target needs.
    #[cfg(test)]
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places = vec![self.peer];
        places.extend(OURS.map(|device| Place { device, ..self.ours }));
        places
    }

    fn verdict(&self, device: &'static str, results: &Results) -> Verdict {
        Verdict {
            name: self.name,
            device,
            peer: self.peer.device,
            bound: match self.bound {
                Bound::AtMost(bound) => format!("≤ {bound:.2}"),
                Bound::AtLeast(bound) => format!("≥ {bound:.2}"),
            },
            reached: self.reached(device, results),
        }
    }

    fn reached(&self, device: &'static str, results: &Results) -> Option<Reached> {
        let ours = Place { device, ..self.ours };
        let ours = results.find(|task| ours.is(task))?;
        let peer = results.find(|task| self.peer.is(task))?;
        let ratios = ours.ratios(peer, self.metric);
        let n = ratios.len();
        let ratio = Quartiles::of(ratios)?;
        let met = match self.bound {
            Bound::AtMost(bound) => ratio.median <= bound,
            Bound::AtLeast(bound) => ratio.median >= bound,
        };
        Some(Reached { ratio, n, met })
    }
}

/// Every target, with each of our engines.
pub(crate) fn verdicts(results: &Results) -> Vec<Verdict> {
    TARGETS.iter().flat_map(|target| OURS.map(|device| target.verdict(device, results))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Cell;
    use crate::plan::Plan;

    /// Windows of all tasks that are at `place` with `device`, one a repetition, in which whatever
    /// is measured has these values.
    fn add(results: &mut Results, place: &Place, device: &'static str, values: &[f64]) {
        let place = Place { device, ..*place };
        for task in Plan::short().work.into_iter().filter(|task| place.is(task)) {
            for (repetition, &value) in values.iter().enumerate() {
                let metrics = Metrics {
                    iops: value,
                    p50_us: value,
                    p99_us: value,
                    p999_us: value,
                    cpu_us_per_request: value,
                    mb_per_s: value,
                };
                results.add(task, repetition, Ok(metrics));
            }
        }
    }

    fn reached(index: usize, ours: &[f64], peer: &[f64]) -> Option<Reached> {
        let (target, mut results) = (&TARGETS[index], Results::default());
        add(&mut results, &target.ours, OURS[1], ours);
        add(&mut results, &target.peer, target.peer.device, peer);
        target.verdict(OURS[1], &results).reached
    }

    #[test]
    fn a_ratio_is_ours_to_the_peers() {
        let reached = reached(6, &[0.6, 0.8, 1.2, 0.7, 9.0], &[1.0, 1.0, 1.0, 1.0]).unwrap();
        assert_eq!(reached.n, 4, "the fifth has no other half");
        let Quartiles { q1, median, q3 } = reached.ratio;
        for (got, expected) in [(q1, 0.675), (median, 0.75), (q3, 0.9)] {
            assert!((got - expected).abs() < 1e-9, "{reached:?}");
        }
        assert!(reached.met, "0.8 is asked for");
    }

    #[test]
    fn time_is_to_be_less_and_bandwidth_more() {
        let met = |index, ours| reached(index, &[ours], &[1000.0]).unwrap().met;
        assert!(met(0, 1099.0) && !met(0, 1101.0));
        assert!(met(7, 971.0) && !met(7, 969.0));
    }

    #[test]
    fn without_a_pair_nothing_is_reached() {
        assert_eq!(reached(0, &[1.0], &[]), None);
        assert_eq!(reached(0, &[], &[1.0]), None);
    }

    #[test]
    fn each_engine_has_its_verdict() {
        let mut results = Results::default();
        add(&mut results, &TARGETS[4].ours, OURS[0], &[5.0]);
        add(&mut results, &TARGETS[4].peer, QEMU, &[5.0]);
        let verdicts = verdicts(&results);
        assert_eq!(verdicts.len(), TARGETS.len() * 2);
        let reached: Vec<_> = verdicts.iter().filter(|v| v.reached.is_some()).collect();
        assert_eq!(reached.len(), 1);
        assert!(reached[0].reached.unwrap().met && reached[0].device == OURS[0]);
    }

    #[test]
    fn both_sides_of_a_target_are_of_one_cell() {
        for target in &TARGETS {
            let cells: Vec<Cell> = Plan::short()
                .work
                .iter()
                .filter(|task| target.places().iter().any(|place| place.is(task)))
                .map(|task| task.cell)
                .collect();
            assert_eq!(cells.len(), 1 + OURS.len(), "{}", target.name);
            assert!(cells.iter().all(|cell| *cell == cells[0]), "{cells:?}");
        }
    }

    #[test]
    fn two_queues_are_none_of_a_target_of_one() {
        let two = |task: &&Task| task.cell.queues == 2;
        assert!(Plan::full().work.iter().filter(two).all(|task| !TARGETS[0].peer.is(task)));
    }
}
