use std::io;

use crate::cpu_list::Cpu;

/// What went wrong with a queue's thread, told on that thread.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The thread runs where the scheduler has it run. The queue is served.
    #[error("a queue's thread can't be bound to CPU {cpu}, and runs on any")]
    NotPinned {
        /// Where it was to run.
        cpu: Cpu,
        /// What sched_setaffinity(2) gave: the CPU isn't there, or isn't among those of the process's
        /// cpuset (EINVAL).
        source: io::Error,
    },
    /// The code that served the queue panicked: it is a fault of the program. The queue was dropped, and
    /// the engine after it.
    #[error("a queue's thread panicked: report this as a bug")]
    Panicked,
}
