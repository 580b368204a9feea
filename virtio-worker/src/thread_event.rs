use std::io;

use crate::cpu_list::Cpu;

/// What happens to a queue's thread besides serving its queue. Reported on that thread.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThreadEvent {
    /// The thread could not be bound to its CPU. The queue is served, on any CPU of the process.
    #[error("a queue's thread can't be bound to CPU {cpu}, and runs on any")]
    NotPinned {
        /// The CPU asked for.
        cpu: Cpu,
        /// What sched_setaffinity(2) returned: EINVAL if the CPU does not exist or is not in the process's
        /// cpuset.
        source: io::Error,
    },
    /// The code that served the queue panicked, which is a bug in the program. The queue has been dropped;
    /// the engine is dropped next.
    #[error("a queue's thread panicked: report this as a bug")]
    Panicked,
}
