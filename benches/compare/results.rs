//! What all windows together say.

use std::collections::HashMap;

use crate::cell::Cell;
use crate::quartiles::Quartiles;
use crate::series::Series;
use crate::task::Task;
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

/// The windows of a run.
#[derive(Default)]
pub(crate) struct Results {
    series: HashMap<Task, Series>,
    doubts: HashMap<&'static str, usize>,
}

impl Results {
    pub(crate) fn add(&mut self, task: Task, repetition: usize, outcome: Result<Metrics, Doubt>) {
        let series = self.series.entry(task).or_default();
        match outcome {
            Ok(metrics) => series.believe(repetition, metrics),
            Err(doubt) => {
                series.reject();
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

    /// The windows of the task that is `wanted`.
    pub(crate) fn find(&self, wanted: impl Fn(&Task) -> bool) -> Option<&Series> {
        self.series.iter().find_map(|(task, series)| wanted(task).then_some(series))
    }

    /// A row for whatever has a window that is believed, in the order of `work`; and what has
    /// windows, but none of those.
    pub(crate) fn rows(&self, work: &[Task]) -> (Vec<Row>, Vec<String>) {
        let (mut rows, mut none) = (Vec::new(), Vec::new());
        for task in work {
            let Some(series) = self.series.get(task) else { continue };
            match row(task, series) {
                Some(row) => rows.push(row),
                None => none.push(format!("{} {}: {}", task.subject, task.regime(), task.cell)),
            }
        }
        (rows, none)
    }
}

fn row(task: &Task, series: &Series) -> Option<Row> {
    Some(Row {
        device: task.subject.to_string(),
        regime: task.regime(),
        cell: task.cell,
        n: series.believed(),
        rejected: series.rejected(),
        iops: series.quartiles(|metrics| metrics.iops)?,
        p50_us: series.quartiles(|metrics| metrics.p50_us)?,
        p99_us: series.quartiles(|metrics| metrics.p99_us)?,
        p999_us: series.quartiles(|metrics| metrics.p999_us)?,
        cpu_us_per_request: series.quartiles(|metrics| metrics.cpu_us_per_request)?,
        mb_per_s: series.quartiles(|metrics| metrics.mb_per_s)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Client, Op};
    use crate::subject::Subject;

    #[test]
    fn rejected_windows_are_counted_and_have_no_part_in_the_medians() {
        let cell = Cell { op: Op::Read, bytes: 4096, depth: 1, queues: 1, client: Client::Spins };
        let [task, other, never] = [1, 4, 32]
            .map(|depth| Task { subject: Subject::RawPread, cell: Cell { depth, ..cell } });
        let window = |iops| Metrics {
            iops,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            cpu_us_per_request: 4.0,
            mb_per_s: 5.0,
        };
        let mut results = Results::default();
        for (repetition, outcome) in [
            (0, Ok(window(10.0))),
            (1, Err(Doubt::Little)),
            (1, Ok(window(30.0))),
            (2, Ok(window(20.0))),
        ] {
            results.add(task, repetition, outcome);
        }
        results.add(other, 0, Err(Doubt::Short));
        let (rows, none) = results.rows(&[task, other, never]);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].n, rows[0].rejected, rows[0].iops.median), (3, 1, 20.0));
        assert_eq!(none.len(), 1, "{none:?}");
        assert_eq!(results.doubts().iter().map(|(_, n)| n).sum::<usize>(), 2);
    }
}
