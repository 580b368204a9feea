/// What a thread does, and so which system calls it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThreadKind {
    /// Answers the guest's registers, starts and stops the others, talks to the supervisor: the
    /// thread that enters the sandbox. As a filter passes on to the threads that it starts, and can
    /// only be narrowed, this kind may do what any of the others may.
    Guest,
    /// Serves a queue by system calls: reads and writes the image, maps the guest's memory, raises
    /// its interrupt.
    SyncQueue,
    /// The same over an io_uring that exists, and by system calls where the ring can't.
    UringQueue,
    /// Writes to descriptors that are open, and nothing else.
    Log,
}
