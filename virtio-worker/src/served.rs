use crate::wake::Wake;

/// Whether an engine can serve its queue again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// The engine works and has nothing in flight. [`Stopped`] contains it.
    Idle,
    /// The engine is broken, or has something in flight that could not be waited for. It is dropped: the
    /// next thread would get the completions of this queue's requests.
    Unusable,
}

/// What the closure that serves a queue returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served<R> {
    /// For whoever stops the thread, for example the positions in the rings.
    pub report: R,
    /// Whether the engine can be used again.
    pub engine: EngineState,
}

impl<R> Served<R> {
    /// The engine is [idle](EngineState::Idle).
    pub fn idle(report: R) -> Self {
        Self { report, engine: EngineState::Idle }
    }

    /// The engine is [unusable](EngineState::Unusable).
    pub fn unusable(report: R) -> Self {
        Self { report, engine: EngineState::Unusable }
    }
}

/// What a [`QueueThread`](crate::QueueThread) leaves when it is stopped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Stopped<E, R> {
    /// The `Wake` that the thread slept on, for the next thread.
    pub wake: Wake,
    /// The engine; `None` if it is [unusable](EngineState::Unusable) or the thread panicked.
    pub engine: Option<E>,
    /// The report; `None` if the thread panicked.
    pub report: Option<R>,
}
