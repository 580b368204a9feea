//! What there is to measure, and the order in which a repetition does.

use crate::cell::Cell;
use crate::random::Random;
use crate::subject::Subject;

/// A subject under a load: one window in each repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Task {
    pub(crate) subject: Subject,
    pub(crate) cell: Cell,
}

impl Task {
    /// Who polls: the device, the client.
    pub(crate) fn regime(&self) -> &'static str {
        self.subject.regime(&self.cell)
    }
}

/// A new order of `tasks`: cell by cell, the subjects of each directly one after the other, so that
/// a time in which the machine is slow meets all of them. Those that poll and the bare calls, which
/// are compared with each other, stand together, too, and so do those that don't.
pub(crate) fn shuffled(tasks: &[Task], random: &mut Random) -> Vec<Task> {
    let mut cells: Vec<Cell> = Vec::new();
    for task in tasks {
        if !cells.contains(&task.cell) {
            cells.push(task.cell);
        }
    }
    random.shuffle(&mut cells);
    let mut order = Vec::with_capacity(tasks.len());
    for cell in cells {
        let of_cell = tasks.iter().filter(|task| task.cell == cell);
        let (mut quiet, mut others): (Vec<Task>, Vec<Task>) =
            of_cell.partition(|task| matches!(task.subject, Subject::Served { polls: false, .. }));
        random.shuffle(&mut quiet);
        random.shuffle(&mut others);
        order.append(&mut quiet);
        order.append(&mut others);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use std::collections::HashSet;

    fn orders() -> impl Iterator<Item = Vec<Task>> {
        [Plan::short(), Plan::full()].into_iter().flat_map(|plan| {
            (0..5).map(move |repetition| shuffled(&plan.work, &mut Random::new(repetition)))
        })
    }

    /// How many runs of equal keys there are.
    fn runs<K: PartialEq>(order: &[Task], key: impl Fn(&Task) -> K) -> usize {
        order.chunk_by(|a, b| key(a) == key(b)).count()
    }

    #[test]
    fn the_subjects_of_a_cell_are_adjacent() {
        for order in orders() {
            let cells: HashSet<Cell> = order.iter().map(|task| task.cell).collect();
            assert_eq!(runs(&order, |task| task.cell), cells.len());
        }
    }

    #[test]
    fn what_is_compared_under_a_cell_is_adjacent() {
        let key =
            |task: &Task| (task.cell, matches!(task.subject, Subject::Served { polls: false, .. }));
        for order in orders() {
            let kinds: HashSet<_> = order.iter().map(key).collect();
            assert_eq!(runs(&order, key), kinds.len());
        }
    }

    #[test]
    fn an_order_has_every_task_once() {
        for plan in [Plan::short(), Plan::full()] {
            let order = shuffled(&plan.work, &mut Random::new(3));
            assert_eq!(order.len(), plan.work.len());
            let order: HashSet<Task> = order.into_iter().collect();
            assert_eq!(order, plan.work.iter().copied().collect());
        }
    }

    #[test]
    fn cells_and_their_subjects_come_in_another_order_each_time() {
        let cells = |order: &[Task]| {
            let first = order.chunk_by(|a, b| a.cell == b.cell).map(|tasks| tasks[0].cell);
            first.collect::<Vec<_>>()
        };
        let work = Plan::short().work;
        let [one, other] = [1, 2].map(|seed| shuffled(&work, &mut Random::new(seed)));
        assert_ne!(cells(&one), cells(&other));
        let of_first_cell = |order: &[Task]| {
            let tasks = order.iter().filter(|task| task.cell == work[0].cell);
            tasks.map(|task| task.subject).collect::<Vec<_>>()
        };
        assert_ne!(of_first_cell(&one), of_first_cell(&other));
    }
}
