use std::collections::VecDeque;

use crate::engine::Completion;

/// The flushes and durable writes of one worker that are in its engine, and the completions that wait
/// for them.
///
/// Linux reports a write-back error once for each open file description. If several such operations of a
/// queue overlap, one may get the error of another. So the success of one counts only when all those that
/// were in flight with it have ended without an error. Operations that start later aren't waited for.
///
/// With a write cache at most one flush is in flight, and nothing ever waits.
#[derive(Debug)]
pub(crate) struct Overlap {
    /// Tags and sequence numbers, in the order of the latter.
    in_engine: Vec<(u64, u64)>,
    /// The next sequence number.
    next: u64,
    /// Completions, each with the sequence number below which nothing may be in the engine any more, in
    /// that order.
    held: VecDeque<(u64, Completion)>,
}

impl Overlap {
    /// Room for the operations of a queue of so many entries, and a flush that belongs to no request.
    pub(crate) fn with_capacity(queue_size: u16) -> Self {
        let capacity = usize::from(queue_size).saturating_add(1);
        Self {
            in_engine: Vec::with_capacity(capacity),
            next: 0,
            held: VecDeque::with_capacity(capacity),
        }
    }

    /// The operation with this tag is in the engine.
    pub(crate) fn begin(&mut self, tag: u64) {
        self.in_engine.push((tag, self.next));
        self.next = self.next.wrapping_add(1);
    }

    /// The operation with this tag has left the engine.
    #[inline]
    pub(crate) fn end(&mut self, tag: u64) {
        if let Some(at) = self.in_engine.iter().position(|(other, _)| *other == tag) {
            self.in_engine.remove(at);
        }
    }

    /// Whether no such operation is in the engine, so that a completion needn't wait.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.in_engine.is_empty()
    }

    /// Keeps a successful completion until everything that is in the engine now has ended. Returns it if
    /// it needn't wait.
    #[inline]
    pub(crate) fn hold(&mut self, completion: Completion) -> Option<Completion> {
        if self.is_empty() || completion.result.is_err() {
            return Some(completion);
        }
        self.held.push_back((self.next, completion));
        None
    }

    /// The next completion that everything it waited for has ended.
    pub(crate) fn release(&mut self) -> Option<Completion> {
        let oldest = self.in_engine.first().map_or(u64::MAX, |(_, number)| *number);
        let (until, _) = self.held.front()?;
        if *until > oldest {
            return None;
        }
        self.held.pop_front().map(|(_, completion)| completion)
    }

    /// How many completions wait.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Removes the waiting completions, for a worker that is dropped.
    pub(crate) fn take_held(&mut self) -> impl Iterator<Item = Completion> {
        self.held.drain(..).map(|(_, completion)| completion)
    }
}
