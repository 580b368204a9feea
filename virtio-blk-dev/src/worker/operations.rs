use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::canceller::Canceller;
use super::flushes::{Flushes, Placement};
use super::overlap::Overlap;
use crate::device::Live;
use crate::engine::{Command, Completion, Engine, Io};

/// The operations of a worker's requests, from submission to completion: keeps flushes and durable
/// writes in an order in which no write-back error is missed.
pub(crate) struct Operations<E: Engine> {
    pub(crate) engine: E,
    live: Arc<Live>,
    /// To be submitted with the rest of the batch.
    pending: Vec<Io>,
    /// Completions that haven't been processed, in the order in which they arrived.
    finished: VecDeque<Completion>,
    flushes: Flushes,
    overlap: Overlap,
    pub(crate) canceller: Canceller,
    /// The tag of the operation whose failure made the disk lose its
    /// [`Durability`](crate::Durability), until that completion is processed.
    durability_error: Option<u64>,
}

/// An operation is left to be submitted.
pub(crate) struct Left;

impl<E: Engine> Operations<E> {
    pub(crate) fn new(queue_size: u16, engine: E, live: Arc<Live>, canceller: Canceller) -> Self {
        Self {
            engine,
            live,
            pending: Vec::with_capacity(queue_size.into()),
            finished: VecDeque::with_capacity(queue_size.into()),
            flushes: Flushes::with_capacity(queue_size),
            overlap: Overlap::with_capacity(queue_size),
            canceller,
            durability_error: None,
        }
    }

    /// Adds an operation, to be submitted with the others of its batch.
    #[inline]
    pub(crate) fn push(&mut self, io: Io) {
        self.pending.push(io);
    }

    /// Operations that wait for [`submit_pending`](Self::submit_pending).
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Carries out the pending operation, if there is one, unless that may block or depends on another.
    ///
    /// # Errors
    /// It is still pending.
    pub(crate) fn try_pending(&mut self) -> Result<Option<Completion>, Left> {
        let Some(io) = self.pending.pop() else { return Ok(None) };
        let attempt = if io.is_plain() { self.engine.try_alone(io) } else { Err(io) };
        attempt.map(Some).map_err(|io| {
            self.pending.push(io);
            Left
        })
    }

    /// Whether there is no operation, in whatever state.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.finished.is_empty() && self.in_flight() == 0
    }

    /// Submits the pending operations to the engine, and commits them.
    #[inline]
    pub(crate) fn submit_pending(&mut self) {
        match self.pending.len() {
            0 => self.engine.commit(),
            1 => {
                let io = self.pending.pop();
                let Some(io) = io else { return };
                if !io.is_plain() {
                    self.submit_one_ordered(io);
                } else if let Some(completion) = self.engine.submit_alone(io) {
                    self.finished.push_back(completion);
                }
            }
            _ => {
                self.flushes.begin_batch();
                let mut pending = std::mem::take(&mut self.pending);
                for io in pending.drain(..) {
                    let completion =
                        if io.is_plain() { self.engine.submit(io) } else { self.submit(io) };
                    if let Some(completion) = completion {
                        self.finished.push_back(completion);
                    }
                }
                self.pending = pending;
                self.flushes.end_batch();
                self.engine.commit();
            }
        }
    }

    #[cold]
    fn submit_one_ordered(&mut self, io: Io) {
        if let Some(completion) = self.submit(io) {
            self.finished.push_back(completion);
        }
        self.engine.commit();
    }

    /// Submits one operation, and returns it if it is completed synchronously.
    pub(crate) fn submit(&mut self, io: Io) -> Option<Completion> {
        if !io.is_stable() {
            if !io.is_plain() && self.canceller.is_cancelled() {
                return Some(Completion { io, result: Err(cancelled()) });
            }
            return self.engine.submit(io);
        }
        if self.live.durability().is_lost() {
            // `is_ok` fails it.
            return Some(Completion { io, result: Ok(()) });
        }
        if io.command() != Command::Flush {
            return self.submit_stable(io);
        }
        let place = self.flushes.add(io);
        self.place_flush(place)
    }

    /// Submits a flush that belongs to no request. While one waits, further ones are merged into it.
    pub(crate) fn submit_internal_flush(&mut self, io: Io) {
        let place = self.flushes.add_internal(io);
        let completion = self.place_flush(place);
        self.finished.extend(completion);
        self.engine.commit();
    }

    #[inline]
    fn place_flush(&mut self, place: Placement) -> Option<Completion> {
        match place {
            Placement::Submit(io) => self.submit_stable(io),
            Placement::Complete(io) => self.overlap.hold(Completion { io, result: Ok(()) }),
            Placement::Deferred => None,
        }
    }

    /// Submits a flush or a durable write.
    fn submit_stable(&mut self, io: Io) -> Option<Completion> {
        let tag = io.tag();
        match self.engine.submit(io) {
            Some(completion) => {
                self.record(&completion);
                self.overlap.hold(completion)
            }
            None => {
                self.overlap.begin(tag);
                None
            }
        }
    }

    /// Collects completions from the engine. Returns whether a waiting flush was submitted, which may
    /// complete synchronously, too.
    #[inline]
    pub(crate) fn poll(&mut self) -> bool {
        let Self { engine, finished, .. } = self;
        let (mut plain, old) = (true, finished.len());
        engine.poll_completions(&mut |completion| {
            plain &= completion.io.is_plain();
            finished.push_back(completion);
        });
        !plain && self.record_from(old)
    }

    /// Processes completions with flushes or durable writes among them, before any of them is answered:
    /// one that succeeded while another failed isn't known to be stable.
    #[cold]
    fn record_from(&mut self, old: usize) -> bool {
        let mut finished = std::mem::take(&mut self.finished);
        finished.iter().skip(old).for_each(|completion| self.record(completion));
        finished.append(&mut self.finished);
        let mut at = old;
        for _ in old..finished.len() {
            let Some(completion) = finished.get(at).filter(|_| !self.overlap.is_empty()) else {
                break;
            };
            // This may reorder completions, but not with an engine that completes in order: there no
            // stable operation is ever in flight here.
            let kept = completion.io.is_stable() && completion.result.is_ok();
            match kept.then(|| finished.swap_remove_back(at)).flatten() {
                Some(completion) => finished.extend(self.overlap.hold(completion)),
                None => at = at.saturating_add(1),
            }
        }
        self.finished = finished;
        while let Some(completion) = self.overlap.release() {
            self.finished.push_back(completion);
        }
        let mut begun = false;
        while let Some(leader) = self.flushes.next() {
            match self.submit_stable(leader) {
                Some(completion) => self.finished.push_back(completion),
                None => begun = true,
            }
        }
        if begun {
            self.engine.commit();
        }
        begun
    }

    /// Records the result of an operation, if it was a flush or a durable write.
    fn record(&mut self, completion: &Completion) {
        let Completion { io, result } = completion;
        if io.is_stable() {
            self.overlap.end(io.tag());
        }
        if result.is_err() && io.loses_durability() && self.live.durability().lose() {
            self.durability_error = Some(io.tag());
        }
        for io in self.flushes.ended(io).into_iter().flatten() {
            let completion = Completion { io, result: Ok(()) };
            self.finished.extend(self.overlap.hold(completion));
        }
    }

    /// Whether the success of an operation can be reported: not that of a flush or durable write after
    /// durability was lost.
    #[inline]
    pub(crate) fn is_ok(&self, io: &Io) -> bool {
        !(io.is_stable() && self.live.durability().is_lost())
    }

    /// Whether the operation with this tag is the one that made the disk lose its durability. True only
    /// once.
    pub(crate) fn is_durability_error(&mut self, tag: u64) -> bool {
        self.durability_error.take_if(|failed| *failed == tag).is_some()
    }

    /// Whether completions wait to be processed.
    pub(crate) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// The oldest completion.
    #[inline]
    pub(crate) fn next_finished(&mut self) -> Option<Completion> {
        self.finished.pop_front()
    }

    /// Operations in the engine, and those that wait for another one there.
    pub(crate) fn in_flight(&self) -> usize {
        let waiting = self.flushes.deferred().saturating_add(self.overlap.held());
        self.engine.in_flight().saturating_add(waiting)
    }

    /// All operations that aren't in the engine, for a worker that is dropped.
    pub(crate) fn drain_all(&mut self) -> impl Iterator<Item = Io> {
        let Self { pending, finished, flushes, overlap, .. } = self;
        let finished =
            finished.drain(..).chain(overlap.take_held()).map(|completion| completion.io);
        pending.drain(..).chain(finished).chain(flushes.take_deferred())
    }
}

/// The result of a range that wasn't started before the worker was cancelled.
fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

/// Whether an error is from a cancellation rather than from the host.
pub(crate) fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}
