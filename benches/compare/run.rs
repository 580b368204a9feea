//! A run: repetition after repetition, until all are done or time is up.

use std::collections::HashSet;
use std::time::Instant;

use crate::cell::Medium;
use crate::measure::{Bench, Turn};
use crate::plan::Plan;
use crate::random::Random;
use crate::results::Results;
use crate::subject::Subject;
use crate::task::{Task, shuffled};

/// What came of a run.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) results: Results,
    /// Each subject that failed, and why. It has had no more turns.
    pub(crate) failures: Vec<String>,
    /// Repetitions that were done, if time was up before all were.
    pub(crate) cut_off: Option<usize>,
    failed: HashSet<Subject>,
    verified: HashSet<(Subject, Medium)>,
}

impl Run {
    /// Every repetition of `plan` that there is time for.
    pub(crate) fn of(plan: &Plan, bench: &Bench<'_>) -> Self {
        let (start, mut run) = (Instant::now(), Self::default());
        for repetition in 0..plan.repetitions {
            let begun = start.elapsed();
            // One more takes as long as those before did.
            let expected = begun.checked_div(repetition as u32).unwrap_or_default();
            if plan.limit.is_some_and(|limit| begun + expected > limit) {
                run.cut_off = Some(repetition);
                break;
            }
            let order = shuffled(&plan.work, &mut Random::new(repetition as u64));
            for (index, task) in order.iter().enumerate() {
                eprint!(
                    "\r\x1b[Krepetition {}/{}, {}/{}: {}",
                    repetition + 1,
                    plan.repetitions,
                    index + 1,
                    order.len(),
                    task.subject
                );
                run.measure(bench, *task, repetition);
            }
        }
        eprintln!("\r\x1b[K{} s", start.elapsed().as_secs());
        run
    }

    fn measure(&mut self, bench: &Bench<'_>, task: Task, repetition: usize) {
        let Task { subject, cell } = task;
        if self.failed.contains(&subject) {
            return;
        }
        let verify = self.verified.insert((subject, cell.op.medium()));
        match bench.measure(&Turn { task, verify, seed: repetition as u64 }) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    self.results.add(task, repetition, outcome);
                }
            }
            Err(error) => {
                let why = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
                self.failures.push(format!("{subject} ({}) failed: {why}", subject.way()));
                self.failed.insert(subject);
            }
        }
    }
}
