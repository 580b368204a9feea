//! What all windows together say.

use std::collections::HashMap;

use crate::cell::Cell;
use crate::plan::Task;
use crate::quartiles::Quartiles;
use crate::subject::Subject;
use crate::window::{Doubt, Metrics};

/// One row of the table: a device under a load.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) device: String,
    pub(crate) regime: &'static str,
    pub(crate) cell: Cell,
    /// Windows that are believed.
    pub(crate) n: usize,
    /// Windows that are not.
    pub(crate) rejected: usize,
    pub(crate) iops: Quartiles,
    pub(crate) p50_us: Quartiles,
    pub(crate) p99_us: Quartiles,
    pub(crate) p999_us: Quartiles,
    pub(crate) cpu_us_per_request: Quartiles,
    pub(crate) mb_per_s: Quartiles,
}

/// The windows of a run, by what was measured.
#[derive(Default)]
pub(crate) struct Results {
    windows: HashMap<(Subject, Cell), (Vec<Metrics>, usize)>,
    doubts: HashMap<&'static str, usize>,
}

impl Results {
    pub(crate) fn add(&mut self, subject: Subject, cell: Cell, outcome: Result<Metrics, Doubt>) {
        let (believed, rejected) = self.windows.entry((subject, cell)).or_default();
        match outcome {
            Ok(metrics) => believed.push(metrics),
            Err(doubt) => {
                *rejected += 1;
                *self.doubts.entry(doubt.reason()).or_default() += 1;
            }
        }
    }

    /// How many windows were rejected, and why.
    pub(crate) fn doubts(&self) -> Vec<(&'static str, usize)> {
        let mut doubts: Vec<_> = self.doubts.iter().map(|(doubt, n)| (*doubt, *n)).collect();
        doubts.sort_unstable();
        doubts
    }

    /// A row for whatever has a window that is believed, in the order of `work`; and what has
    /// windows, but none of those.
    pub(crate) fn rows(&self, work: &[Task]) -> (Vec<Row>, Vec<String>) {
        let (mut rows, mut none) = (Vec::new(), Vec::new());
        for Task { subject, cells, .. } in work {
            for cell in cells {
                let Some((windows, rejected)) = self.windows.get(&(*subject, *cell)) else {
                    continue;
                };
                match row(subject, cell, windows, *rejected) {
                    Some(row) => rows.push(row),
                    None => none.push(format!("{subject} {}: {cell}", subject.regime(cell))),
                }
            }
        }
        (rows, none)
    }
}

fn row(subject: &Subject, cell: &Cell, windows: &[Metrics], rejected: usize) -> Option<Row> {
    let of = |metric: fn(&Metrics) -> f64| Quartiles::of(windows.iter().map(metric));
    Some(Row {
        device: subject.to_string(),
        regime: subject.regime(cell),
        cell: *cell,
        n: windows.len(),
        rejected,
        iops: of(|metrics| metrics.iops)?,
        p50_us: of(|metrics| metrics.p50_us)?,
        p99_us: of(|metrics| metrics.p99_us)?,
        p999_us: of(|metrics| metrics.p999_us)?,
        cpu_us_per_request: of(|metrics| metrics.cpu_us_per_request)?,
        mb_per_s: of(|metrics| metrics.mb_per_s)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Client, Medium, Op};

    #[test]
    fn rejected_windows_are_counted_and_have_no_part_in_the_medians() {
        let cell = Cell { op: Op::Read, bytes: 4096, depth: 1, queues: 1, client: Client::Spins };
        let other = Cell { depth: 4, ..cell };
        let window = |iops| Metrics {
            iops,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            cpu_us_per_request: 4.0,
            mb_per_s: 5.0,
        };
        let mut results = Results::default();
        for outcome in [Ok(window(10.0)), Err(Doubt::Little), Ok(window(30.0)), Ok(window(20.0))] {
            results.add(Subject::RawPread, cell, outcome);
        }
        results.add(Subject::RawPread, other, Err(Doubt::Short));
        let never = Cell { depth: 32, ..cell };
        let (rows, none) = results.rows(&[Task {
            subject: Subject::RawPread,
            medium: Medium::PageCache,
            cells: vec![cell, other, never],
        }]);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].n, rows[0].rejected, rows[0].iops.median), (3, 1, 20.0));
        assert_eq!(none.len(), 1, "{none:?}");
        assert_eq!(results.doubts().iter().map(|(_, n)| n).sum::<usize>(), 2);
    }
}
