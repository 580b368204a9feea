use crate::wake::Wake;

/// Whether an engine can serve its queue again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// It has nothing in flight and works as it did: it is given back.
    Idle,
    /// It has something in flight that it can't get back, or doesn't work any more. Lent to the next
    /// thread, it would hand over what the queue before it had asked for; so it is dropped.
    Unusable,
}

/// How a queue's thread leaves what it was lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served<R> {
    /// What the thread has to say of its queue, as where it was left.
    pub report: R,
    /// What becomes of the engine.
    pub engine: EngineState,
}

impl<R> Served<R> {
    /// The queue is given up, and the engine is idle.
    pub fn idle(report: R) -> Self {
        Self { report, engine: EngineState::Idle }
    }

    /// The queue is given up, and the engine is [unusable](EngineState::Unusable).
    pub fn unusable(report: R) -> Self {
        Self { report, engine: EngineState::Unusable }
    }
}

/// What is left of a [`QueueThread`](crate::QueueThread) that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Stopped<E, R> {
    /// What it slept on.
    pub wake: Wake,
    /// What it was lent, unless that is [unusable](EngineState::Unusable), or the thread panicked.
    pub engine: Option<E>,
    /// What it had to say; `None` if it panicked.
    pub report: Option<R>,
}
