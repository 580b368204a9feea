/// Kind of a thread, which determines the system calls that it may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThreadKind {
    /// The main thread, which enters the sandbox: handles I/O requests, starts and stops other
    /// threads, talks to the supervisor. Threads inherit its filter and can only narrow it, so it
    /// allows everything that the other kinds may do.
    Guest,
    /// Serves a queue with synchronous I/O: reads and writes the image, maps guest memory, raises
    /// interrupts.
    SyncQueue,
    /// Serves a queue over an existing io_uring, with synchronous I/O as a fallback.
    UringQueue,
    /// Writes the log.
    Log,
}
