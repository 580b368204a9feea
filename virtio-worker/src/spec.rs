use crate::cpu_list::Cpu;
use crate::wake::{Wake, Waker};

/// How a queue's thread is to be started.
#[derive(Debug)]
pub struct ThreadSpec {
    pub(crate) name: String,
    pub(crate) wake: Wake,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) stack_size: Option<usize>,
    pub(crate) at_end: Option<Waker>,
}

impl ThreadSpec {
    /// A thread with this name, which sleeps on `wake`. The kernel shows the first 15 bytes of the name. A name
    /// with a NUL is cut there.
    pub fn new(name: impl AsRef<str>, wake: Wake) -> Self {
        // std panics at a NUL.
        let name = name.as_ref().split('\0').next().unwrap_or_default().to_owned();
        Self { name, wake, cpu: None, stack_size: None, at_end: None }
    }

    /// Binds the thread to a CPU, usually that of [`CpuList::of_queue`](crate::CpuList::of_queue). With `None`, it
    /// may run where the thread that starts it may.
    #[must_use]
    pub fn cpu(mut self, cpu: Option<Cpu>) -> Self {
        self.cpu = cpu;
        self
    }

    /// Calls `waker` when the thread has ended, whether it was stopped or not.
    /// [`QueueThread::is_finished`](crate::QueueThread::is_finished) is true then. With this, a thread that answers
    /// register accesses can [begin](crate::QueueThread::begin_stop) to stop a queue whose storage does not
    /// respond, and go on answering until it is woken.
    #[must_use]
    pub fn wake_at_end(mut self, waker: Waker) -> Self {
        self.at_end = Some(waker);
        self
    }

    /// The size of the thread's stack in bytes. The default is that of the standard library: 2 MiB of address
    /// space.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }
}
