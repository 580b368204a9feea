use crate::engine::{Command, Io};

/// The flushes of one worker: at most one is in the engine at a time.
///
/// A flush makes stable what completed before it was submitted. So one flush completes all those that
/// were taken before it was submitted, and flushes that arrive later wait for the next one. This also
/// bounds their number, and ensures that no flush consumes a write-back error that another flush of the
/// same worker should have got.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    state: State,
    /// A batch is being submitted: all of its requests were taken before the first was submitted.
    in_batch: bool,
    /// Complete with the flush in the engine.
    covered: Vec<Io>,
    /// Wait for the next flush.
    waiting: Vec<Io>,
    /// A flush that belongs to no request is in `waiting`.
    internal_waits: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// A flush with this tag is in the engine. Others of the same batch can join it while `joinable`.
    Busy { tag: u64, joinable: bool },
    /// A flush was submitted and completed while the batch was being submitted.
    Covered,
}

/// What to do with a new flush.
#[derive(Debug)]
pub(crate) enum Placement {
    /// Submit it to the engine.
    Submit(Io),
    /// Complete it: another flush of the batch has done its work.
    Complete(Io),
    /// Nothing: it completes with another one.
    Deferred,
}

impl Flushes {
    /// Room for the flushes of a queue of so many entries, and one that belongs to no request.
    pub(crate) fn with_capacity(queue_size: u16) -> Self {
        let capacity = usize::from(queue_size).saturating_add(1);
        Self {
            covered: Vec::with_capacity(capacity),
            waiting: Vec::with_capacity(capacity),
            ..Self::default()
        }
    }

    /// Starts a batch: flushes added until [`end_batch`](Self::end_batch) were taken before this call.
    pub(crate) fn begin_batch(&mut self) {
        self.in_batch = true;
    }

    /// Ends the batch: flushes added from now on can't join one of the batch.
    pub(crate) fn end_batch(&mut self) {
        self.in_batch = false;
        match &mut self.state {
            State::Busy { joinable, .. } => *joinable = false,
            State::Covered => self.state = State::Idle,
            State::Idle => {}
        }
    }

    /// Adds the flush of a request.
    pub(crate) fn add(&mut self, io: Io) -> Placement {
        match self.state {
            State::Idle => {
                self.state = State::Busy { tag: io.tag(), joinable: self.in_batch };
                return Placement::Submit(io);
            }
            State::Covered => return Placement::Complete(io),
            State::Busy { joinable: true, .. } => self.covered.push(io),
            State::Busy { joinable: false, .. } => self.waiting.push(io),
        }
        Placement::Deferred
    }

    /// Adds a flush that belongs to no request. It is dropped if one is waiting already.
    pub(crate) fn add_internal(&mut self, io: Io) -> Placement {
        if std::mem::replace(&mut self.internal_waits, true) {
            return Placement::Deferred;
        }
        let place = self.add(io);
        self.internal_waits = matches!(place, Placement::Deferred);
        place
    }

    /// The engine has finished `io`: returns the flushes that complete with it, if there are any.
    pub(crate) fn ended(&mut self, io: &Io) -> Option<std::vec::Drain<'_, Io>> {
        let ended = matches!(&self.state, State::Busy { tag, .. } if *tag == io.tag());
        if !ended || io.command() != Command::Flush {
            return None;
        }
        self.state = if self.in_batch { State::Covered } else { State::Idle };
        (!self.covered.is_empty()).then(|| self.covered.drain(..))
    }

    /// The next flush to submit, if some wait and none is in the engine.
    pub(crate) fn next(&mut self) -> Option<Io> {
        if !matches!(self.state, State::Idle) {
            return None;
        }
        let leader = self.waiting.pop()?;
        self.covered.append(&mut self.waiting);
        self.internal_waits = false;
        self.state = State::Busy { tag: leader.tag(), joinable: false };
        Some(leader)
    }

    /// How many flushes are neither in the engine nor complete.
    pub(crate) fn deferred(&self) -> usize {
        self.covered.len().saturating_add(self.waiting.len())
    }

    /// Removes the flushes that aren't in the engine, for a worker that is dropped.
    pub(crate) fn take_deferred(&mut self) -> impl Iterator<Item = Io> {
        self.covered.drain(..).chain(self.waiting.drain(..))
    }
}
