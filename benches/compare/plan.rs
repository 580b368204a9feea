//! Which part of the matrix a run covers.

use std::time::Duration;

use crate::cell::{Cell, Client, Op};
use crate::program::Program;
use crate::subject::Subject;
use crate::task::Task;

const KIB4: u32 = 4 << 10;
const KIB64: u32 = 64 << 10;
const KIB128: u32 = 128 << 10;

/// A run.
pub(crate) struct Plan {
    /// In the order of the table.
    pub(crate) work: Vec<Task>,
    pub(crate) repetitions: usize,
    /// Length of a window; its warm-up is half of that.
    pub(crate) window: Duration,
    /// No repetition begins that would not end before; none for a full run.
    pub(crate) limit: Option<Duration>,
    /// What of the matrix is not measured.
    pub(crate) left_out: &'static str,
}

/// The most requests in flight and bytes in one that any plan has.
pub(crate) const DEEPEST: u16 = 128;
pub(crate) const LARGEST: usize = KIB128 as usize;

const PROGRAMS: [Program; 4] = [
    Program::Ours("io_uring"),
    Program::Ours("sync"),
    Program::Qemu("io_uring"),
    Program::Qemu("threads"),
];

impl Plan {
    /// All that the targets need, in less than five minutes.
    pub(crate) fn short() -> Self {
        Self {
            work: work(short_cells),
            repetitions: 8,
            window: Duration::from_millis(200),
            limit: Some(Duration::from_secs(270)),
            left_out: "With `--short`: all that is not in the table; the full run has more.",
        }
    }

    /// What can be learnt in less than an hour.
    pub(crate) fn full() -> Self {
        Self {
            work: work(full_cells),
            repetitions: 7,
            window: Duration::from_millis(300),
            limit: None,
            left_out: "Left out of the matrix: QD 4 and 128 of everything but reads; 64 KiB and \
                       128 KiB of the mix and of write + flush; 2 queues of everything but 4 KiB \
                       reads at QD 4, 32 and 128 and 4 KiB writes at QD 32.",
        }
    }
}

/// Every subject with its cells, for one and two queues.
fn work(cells: fn(&Subject) -> Vec<Cell>) -> Vec<Task> {
    let served = PROGRAMS.into_iter().flat_map(|program| {
        [(true, 1), (false, 1), (true, 2), (false, 2)].map(|(polls, queues)| Subject::Served {
            program,
            polls,
            queues,
        })
    });
    let all = served.chain([Subject::InProcess, Subject::RawPread, Subject::RawUring]);
    all.flat_map(|subject| cells(&subject).into_iter().map(move |cell| Task { subject, cell }))
        .collect()
}

fn cell(op: Op, bytes: u32, depth: u16, queues: u16, client: Client) -> Cell {
    Cell { op, bytes, depth, queues, client }
}

fn short_cells(subject: &Subject) -> Vec<Cell> {
    use {Client::*, Op::*};
    let one = |op, bytes, depth, client| cell(op, bytes, depth, 1, client);
    match subject {
        Subject::Served { polls: true, queues: 1, .. } => vec![
            one(Read, KIB4, 1, Spins),
            one(Read, KIB4, 4, Spins),
            one(Read, KIB4, 32, Spins),
            one(Read, KIB4, 128, Spins),
            one(Read, KIB128, 32, Spins),
            one(Write, KIB4, 32, Spins),
            one(Mix, KIB4, 32, Spins),
        ],
        Subject::Served { polls: false, queues: 1, .. } => vec![
            one(Read, KIB4, 1, Spins),
            one(Read, KIB4, 1, Sleeps),
            one(Read, KIB4, 32, Sleeps),
            one(WriteFlush, KIB4, 1, Sleeps),
            one(WriteFlushDisk, KIB4, 1, Sleeps),
        ],
        Subject::Served { polls, .. } => {
            let client = if *polls { Spins } else { Sleeps };
            vec![cell(Read, KIB4, 32, 2, client)]
        }
        Subject::InProcess | Subject::RawPread | Subject::RawUring => vec![
            one(Read, KIB4, 1, Spins),
            one(Read, KIB4, 32, Spins),
            one(Read, KIB128, 32, Spins),
            one(Write, KIB4, 32, Spins),
        ],
    }
}

fn full_cells(subject: &Subject) -> Vec<Cell> {
    use {Client::*, Op::*};
    let (clients, queues): (&[Client], u16) = match subject {
        Subject::Served { queues, .. } => (&[Spins, Sleeps], *queues),
        Subject::InProcess | Subject::RawPread | Subject::RawUring => (&[Spins], 1),
    };
    let mut loads = Vec::new();
    if queues == 1 {
        for bytes in [KIB4, KIB64, KIB128] {
            loads.extend([1, 4, 32, 128].map(|depth| (Read, bytes, depth)));
            loads.extend([1, 32].map(|depth| (Write, bytes, depth)));
        }
        loads.extend([1, 32].map(|depth| (Mix, KIB4, depth)));
        loads.extend([1, 32].map(|depth| (WriteFlush, KIB4, depth)));
        loads.push((WriteFlushDisk, KIB4, 1));
    } else {
        loads.extend([4, 32, 128].map(|depth| (Read, KIB4, depth)));
        loads.push((Write, KIB4, 32));
    }
    clients
        .iter()
        .flat_map(|client| {
            loads.iter().map(|&(op, bytes, depth)| cell(op, bytes, depth, queues, *client))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::TARGETS;

    #[test]
    fn every_plan_covers_every_target() {
        for plan in [Plan::short(), Plan::full()] {
            for place in TARGETS.iter().flat_map(|target| target.places()) {
                assert!(plan.work.iter().any(|task| place.is(task)), "{place:?}");
            }
        }
    }

    #[test]
    fn nothing_is_measured_twice_or_beyond_the_rings() {
        for plan in [Plan::short(), Plan::full()] {
            let mut seen = std::collections::HashSet::new();
            for Task { subject, cell } in &plan.work {
                assert!(seen.insert((*subject, *cell)), "{subject} {cell}");
                assert!(cell.depth <= DEEPEST && cell.bytes as usize <= LARGEST);
                assert_eq!(cell.depth % cell.queues, 0);
            }
        }
    }

    #[test]
    fn a_short_run_has_time_for_its_repetitions() {
        let plan = Plan::short();
        let windows = (plan.work.len() * plan.repetitions) as u32;
        let all = plan.window * 3 / 2 * windows;
        assert!(plan.repetitions >= 5);
        // As much as half again for starts, and for windows that are repeated.
        assert!(all * 3 / 2 < plan.limit.unwrap(), "{windows} windows: {all:?}");
    }
}
