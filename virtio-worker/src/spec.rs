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
    /// A thread of this name, of which the kernel shows the first 15 bytes, that sleeps on `wake`. A NUL
    /// ends the name.
    pub fn new(name: impl AsRef<str>, wake: Wake) -> Self {
        // std panics at a NUL.
        let name = name.as_ref().split('\0').next().unwrap_or_default().to_owned();
        Self { name, wake, cpu: None, stack_size: None, at_end: None }
    }

    /// Has it run on this CPU and no other, as of [`CpuList::of_queue`](crate::CpuList::of_queue).
    /// Without one it runs where the thread runs that starts it.
    #[must_use]
    pub fn cpu(mut self, cpu: Option<Cpu>) -> Self {
        self.cpu = cpu;
        self
    }

    /// Wakes another when the thread has ended, by itself or because it was told to: when
    /// [`QueueThread::is_finished`](crate::QueueThread::is_finished) has become true. So a thread that answers
    /// register accesses can [begin](crate::QueueThread::begin_stop) the stop of a queue whose storage does
    /// not answer, and go on with other devices until it is woken.
    #[must_use]
    pub fn wake_at_end(mut self, waker: Waker) -> Self {
        self.at_end = Some(waker);
        self
    }

    /// Has its stack be of so many bytes, instead of what the standard library takes (2 MiB, of which
    /// memory is used as far as it is touched).
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }
}
