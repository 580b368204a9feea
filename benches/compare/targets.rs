//! What the project wants to reach, as ratios between rows of one run.

use crate::cell::{Cell, Op};
use crate::quartiles::Quartiles;
use crate::results::Row;

const OURS: [&str; 2] = ["vhost-user-blk/io_uring", "vhost-user-blk/sync"];
const QEMU: &str = "qemu-storage-daemon/io_uring";
const PREAD: &str = "raw/pread";

/// A row of the table, with one queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    device: &'static str,
    regime: &'static str,
    op: Op,
    bytes: u32,
    depth: u16,
}

impl Place {
    pub(crate) fn is_at(&self, device: &str, regime: &str, cell: &Cell) -> bool {
        self.device == device
            && self.regime == regime
            && (self.op, self.bytes, self.depth, 1)
                == (cell.op, cell.bytes, cell.depth, cell.queues)
    }

    fn find<'r>(&self, rows: &'r [Row]) -> Option<&'r Row> {
        rows.iter().find(|row| self.is_at(&row.device, row.regime, &row.cell))
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
    metric: fn(&Row) -> Quartiles,
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
    /// `None` if a row is missing.
    pub(crate) reached: Option<Reached>,
}

/// A ratio of medians, and the ratios that the quartiles farthest apart give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reached {
    pub(crate) ratio: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) met: bool,
}

const fn at(device: &'static str, regime: &'static str, bytes: u32, depth: u16) -> Place {
    Place { device, regime, op: Op::Read, bytes, depth }
}

pub(crate) const TARGETS: [Target; 5] = [
    Target {
        name: "CPU per 4 KiB read, QD 32, device polls",
        metric: |row| row.cpu_us_per_request,
        ours: at(OURS[0], "polls/spins", 4096, 32),
        peer: at(QEMU, "polls/spins", 4096, 32),
        bound: Bound::AtMost(0.35),
    },
    Target {
        name: "CPU per 4 KiB read, QD 32, device polls",
        metric: |row| row.cpu_us_per_request,
        ours: at(OURS[0], "polls/spins", 4096, 32),
        peer: at(PREAD, "one thread", 4096, 32),
        bound: Bound::AtMost(1.25),
    },
    Target {
        name: "p50 of 4 KiB reads, QD 1, client spins, device polls",
        metric: |row| row.p50_us,
        ours: at(OURS[0], "polls/spins", 4096, 1),
        peer: at(QEMU, "polls/spins", 4096, 1),
        bound: Bound::AtMost(0.40),
    },
    Target {
        name: "p50 of 4 KiB reads, QD 1, client spins, nobody polls",
        metric: |row| row.p50_us,
        ours: at(OURS[0], "quiet/spins", 4096, 1),
        peer: at(QEMU, "quiet/spins", 4096, 1),
        bound: Bound::AtMost(1.0),
    },
    Target {
        name: "bandwidth of sequential 128 KiB reads, QD 32, device polls",
        metric: |row| row.mb_per_s,
        ours: at(OURS[0], "polls/spins", 128 << 10, 32),
        peer: at(QEMU, "polls/spins", 128 << 10, 32),
        bound: Bound::AtLeast(1.1),
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

    fn verdict(&self, device: &'static str, rows: &[Row]) -> Verdict {
        let ours = Place { device, ..self.ours }.find(rows).map(self.metric);
        let peer = self.peer.find(rows).map(self.metric);
        Verdict {
            name: self.name,
            device,
            peer: self.peer.device,
            bound: match self.bound {
                Bound::AtMost(bound) => format!("≤ {bound:.2}"),
                Bound::AtLeast(bound) => format!("≥ {bound:.2}"),
            },
            reached: ours.zip(peer).map(|(ours, peer)| self.reached(&ours, &peer)),
        }
    }

    fn reached(&self, ours: &Quartiles, peer: &Quartiles) -> Reached {
        let ratio = ours.median / peer.median;
        Reached {
            ratio,
            least: ours.q1 / peer.q3,
            most: ours.q3 / peer.q1,
            met: match self.bound {
                Bound::AtMost(bound) => ratio <= bound,
                Bound::AtLeast(bound) => ratio >= bound,
            },
        }
    }
}

/// Every target, with each of our engines.
pub(crate) fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    TARGETS.iter().flat_map(|target| OURS.map(|device| target.verdict(device, rows))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Client;

    fn row(device: &str, regime: &'static str, bytes: u32, depth: u16, value: f64) -> Row {
        let quartiles = Quartiles { q1: value * 0.9, median: value, q3: value * 1.2 };
        Row {
            device: device.to_owned(),
            regime,
            cell: Cell { op: Op::Read, bytes, depth, queues: 1, client: Client::Spins },
            n: 5,
            rejected: 0,
            iops: quartiles,
            p50_us: quartiles,
            p99_us: quartiles,
            p999_us: quartiles,
            cpu_us_per_request: quartiles,
            mb_per_s: quartiles,
        }
    }

    fn verdict(index: usize, rows: &[Row]) -> Verdict {
        TARGETS[index].verdict(OURS[1], rows)
    }

    #[test]
    fn a_ratio_is_ours_to_the_peers() {
        let rows = [
            row(OURS[1], "polls/spins", 4096, 32, 1.4),
            row(QEMU, "polls/spins", 4096, 32, 4.0),
            row(PREAD, "one thread", 4096, 32, 1.0),
        ];
        let reached = verdict(0, &rows).reached.unwrap();
        assert!((reached.ratio - 0.35).abs() < 1e-9 && reached.met, "{reached:?}");
        assert!((reached.least - 0.35 * 0.75).abs() < 1e-9, "{reached:?}");
        assert!((reached.most - 0.35 / 0.75).abs() < 1e-9, "{reached:?}");
        let reached = verdict(1, &rows).reached.unwrap();
        assert!((reached.ratio - 1.4).abs() < 1e-9 && !reached.met, "{reached:?}");
        assert_eq!(verdict(2, &rows).reached, None, "QD 1 was not measured");
    }

    #[test]
    fn bandwidth_is_to_be_more() {
        let peer = row(QEMU, "polls/spins", 128 << 10, 32, 1000.0);
        let met = |ours| {
            let rows = [row(OURS[1], "polls/spins", 128 << 10, 32, ours), peer.clone()];
            verdict(4, &rows).reached.unwrap().met
        };
        assert!(met(1101.0) && !met(1099.0));
    }

    #[test]
    fn each_engine_has_its_verdict() {
        let rows =
            [row(OURS[0], "quiet/spins", 4096, 1, 5.0), row(QEMU, "quiet/spins", 4096, 1, 5.0)];
        let verdicts = verdicts(&rows);
        assert_eq!(verdicts.len(), TARGETS.len() * 2);
        let reached: Vec<_> = verdicts.iter().filter(|v| v.reached.is_some()).collect();
        assert_eq!(reached.len(), 1);
        assert!(reached[0].reached.unwrap().met && reached[0].device == OURS[0]);
    }

    #[test]
    fn a_row_of_two_queues_is_none_of_a_target() {
        let mut two = row(QEMU, "polls/spins", 4096, 32, 1.0);
        two.cell.queues = 2;
        assert!(TARGETS[0].peer.find(&[two]).is_none());
    }
}
