use crate::engine::{Command, Io};

/// The flushes of one worker, of which at most one is in the engine.
///
/// A flush brings to stable storage what completed before it began. So one answers for all that were
/// taken before it was handed over, and what comes while it is under way waits for the next. That also
/// bounds them, and lets no flush use up an error that another of the same worker should have got.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    state: State,
    /// The requests of a batch are being handed over: all of them were taken before it began.
    handing_over: bool,
    /// Answered by the one in the engine.
    riders: Vec<Io>,
    /// For the next one.
    waiting: Vec<Io>,
    /// The worker's own is among those that wait.
    own_waits: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// One with this tag is in the engine.
    Busy { tag: u64, joinable: bool },
    /// One began and ended while the batch was being handed over.
    Covered,
}

/// What becomes of a flush.
#[derive(Debug)]
pub(crate) enum Place {
    /// It goes to the engine.
    Engine(Io),
    /// Another has done its work.
    Done(Io),
    /// It waits for another.
    Kept,
}

impl Flushes {
    /// Room for the flushes of a queue of so many entries, and the worker's own.
    pub(crate) fn with_capacity(queue_size: u16) -> Self {
        let capacity = usize::from(queue_size).saturating_add(1);
        Self {
            riders: Vec::with_capacity(capacity),
            waiting: Vec::with_capacity(capacity),
            ..Self::default()
        }
    }

    /// What is added until [`handed_over`](Self::handed_over) was taken before.
    pub(crate) fn hand_over(&mut self) {
        self.handing_over = true;
    }

    /// The batch is handed over: what is taken from now on is covered by none of its flushes.
    pub(crate) fn handed_over(&mut self) {
        self.handing_over = false;
        match &mut self.state {
            State::Busy { joinable, .. } => *joinable = false,
            State::Covered => self.state = State::Idle,
            State::Idle => {}
        }
    }

    /// Where a flush of a request goes.
    pub(crate) fn add(&mut self, io: Io) -> Place {
        match self.state {
            State::Idle => {
                self.state = State::Busy { tag: io.tag(), joinable: self.handing_over };
                return Place::Engine(io);
            }
            State::Covered => return Place::Done(io),
            State::Busy { joinable: true, .. } => self.riders.push(io),
            State::Busy { joinable: false, .. } => self.waiting.push(io),
        }
        Place::Kept
    }

    /// Where a flush of the worker's own goes. One that waits is enough.
    pub(crate) fn add_own(&mut self, io: Io) -> Place {
        if std::mem::replace(&mut self.own_waits, true) {
            return Place::Kept;
        }
        let place = self.add(io);
        self.own_waits = matches!(place, Place::Kept);
        place
    }

    /// The engine has finished `io`: gives those that it answers for, if there are some.
    pub(crate) fn ended(&mut self, io: &Io) -> Option<std::vec::Drain<'_, Io>> {
        let ended = matches!(&self.state, State::Busy { tag, .. } if *tag == io.tag());
        if !ended || io.command() != Command::Flush {
            return None;
        }
        self.state = if self.handing_over { State::Covered } else { State::Idle };
        (!self.riders.is_empty()).then(|| self.riders.drain(..))
    }

    /// The next one for the engine, if some wait and none is in it.
    pub(crate) fn next(&mut self) -> Option<Io> {
        if !matches!(self.state, State::Idle) {
            return None;
        }
        let leader = self.waiting.pop()?;
        self.riders.append(&mut self.waiting);
        self.own_waits = false;
        self.state = State::Busy { tag: leader.tag(), joinable: false };
        Some(leader)
    }

    /// How many wait for another.
    pub(crate) fn kept(&self) -> usize {
        self.riders.len().saturating_add(self.waiting.len())
    }

    /// Those that wait for another, when there will be no other.
    pub(crate) fn take_kept(&mut self) -> impl Iterator<Item = Io> {
        self.riders.drain(..).chain(self.waiting.drain(..))
    }
}
