use std::collections::VecDeque;

use crate::engine::Completion;

/// The operations of one worker that are to make something stable and are in its engine, and what
/// succeeded beside them.
///
/// Linux reports a write-back error once for each open file description. Of several such operations
/// of one queue, each may therefore get the error of another. So one that succeeded counts only when
/// those that were under way at the same time have ended, too: then the worker knows whether any of
/// them failed. What begins later isn't waited for.
///
/// With a write cache there is no more than one flush at once, and nothing ever waits.
#[derive(Debug)]
pub(crate) struct Overlap {
    /// Tag and number, by number.
    in_engine: Vec<(u64, u64)>,
    /// The number of the next.
    next: u64,
    /// With the number below which nothing may be in the engine any more, by that number.
    held: VecDeque<(u64, Completion)>,
}

impl Overlap {
    /// Room for those of a queue of so many entries, and the worker's own.
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

    /// It isn't any more.
    #[inline]
    pub(crate) fn end(&mut self, tag: u64) {
        if let Some(at) = self.in_engine.iter().position(|(other, _)| *other == tag) {
            self.in_engine.remove(at);
        }
    }

    /// Whether what succeeded has to wait.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.in_engine.is_empty()
    }

    /// Keeps what succeeded until all that is in the engine now has ended; hands back what needn't
    /// wait.
    #[inline]
    pub(crate) fn hold(&mut self, completion: Completion) -> Option<Completion> {
        if self.is_empty() || completion.result.is_err() {
            return Some(completion);
        }
        self.held.push_back((self.next, completion));
        None
    }

    /// What has waited long enough.
    pub(crate) fn release(&mut self) -> Option<Completion> {
        let oldest = self.in_engine.first().map_or(u64::MAX, |(_, number)| *number);
        let (until, _) = self.held.front()?;
        if *until > oldest {
            return None;
        }
        self.held.pop_front().map(|(_, completion)| completion)
    }

    /// How many wait.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Those that wait, when nothing will end any more.
    pub(crate) fn take_held(&mut self) -> impl Iterator<Item = Completion> {
        self.held.drain(..).map(|(_, completion)| completion)
    }
}
