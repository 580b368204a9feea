use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::canceller::Canceller;
use super::flushes::{Flushes, Place};
use super::overlap::Overlap;
use crate::device::Live;
use crate::engine::{Command, Completion, Engine, Io};

/// The operations of a worker's requests, from being taken to being finished.
pub(crate) struct Operations<E: Engine> {
    pub(crate) engine: E,
    live: Arc<Live>,
    /// Not handed to the engine yet.
    taken: Vec<Io>,
    /// Finished and not looked at yet, in the order they finished.
    finished: VecDeque<Completion>,
    flushes: Flushes,
    overlap: Overlap,
    pub(crate) canceller: Canceller,
    /// The operation whose failure, not looked at yet, made the disk lose its
    /// [`Durability`](crate::Durability).
    loss: Option<u64>,
}

impl<E: Engine> Operations<E> {
    pub(crate) fn new(queue_size: u16, engine: E, live: Arc<Live>, canceller: Canceller) -> Self {
        Self {
            engine,
            live,
            taken: Vec::with_capacity(queue_size.into()),
            finished: VecDeque::with_capacity(queue_size.into()),
            flushes: Flushes::with_capacity(queue_size),
            overlap: Overlap::with_capacity(queue_size),
            canceller,
            loss: None,
        }
    }

    /// Takes an operation, to be handed over with the others of its batch.
    #[inline]
    pub(crate) fn take(&mut self, io: Io) {
        self.taken.push(io);
    }

    /// Whether something was taken and not handed over.
    pub(crate) fn has_taken(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Hands what was taken to the engine, and has it begun.
    #[inline]
    pub(crate) fn hand_over(&mut self) {
        match self.taken.len() {
            0 => self.engine.commit(),
            1 => {
                let io = self.taken.pop();
                let Some(io) = io else { return };
                if !io.is_plain() {
                    self.hand_over_other(io);
                } else if let Some(completion) = self.engine.submit_alone(io) {
                    self.finished.push_back(completion);
                }
            }
            _ => {
                self.flushes.hand_over();
                let mut taken = std::mem::take(&mut self.taken);
                for io in taken.drain(..) {
                    let completion =
                        if io.is_plain() { self.engine.submit(io) } else { self.submit(io) };
                    if let Some(completion) = completion {
                        self.finished.push_back(completion);
                    }
                }
                self.taken = taken;
                self.flushes.handed_over();
                self.engine.commit();
            }
        }
    }

    #[cold]
    fn hand_over_other(&mut self, io: Io) {
        if let Some(completion) = self.submit(io) {
            self.finished.push_back(completion);
        }
        self.engine.commit();
    }

    /// Gives the engine one operation, which is handed back if it is finished at once.
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
        self.flush(place)
    }

    /// A flush that no request asked for. Many of them, while one is under way, are one.
    pub(crate) fn flush_own(&mut self, io: Io) {
        let place = self.flushes.add_own(io);
        let completion = self.flush(place);
        self.finished.extend(completion);
        self.engine.commit();
    }

    #[inline]
    fn flush(&mut self, place: Place) -> Option<Completion> {
        match place {
            Place::Engine(io) => self.submit_stable(io),
            Place::Done(io) => self.overlap.hold(Completion { io, result: Ok(()) }),
            Place::Kept => None,
        }
    }

    /// Gives the engine an operation that is to make something stable.
    fn submit_stable(&mut self, io: Io) -> Option<Completion> {
        let tag = io.tag();
        match self.engine.submit(io) {
            Some(completion) => {
                self.note(&completion);
                self.overlap.hold(completion)
            }
            None => {
                self.overlap.begin(tag);
                None
            }
        }
    }

    /// Looks what the engine has finished. Whether the next flush was begun, which may be finished at
    /// once, too.
    #[inline]
    pub(crate) fn poll(&mut self) -> bool {
        let Self { engine, finished, .. } = self;
        let (mut plain, old) = (true, finished.len());
        engine.poll_completions(&mut |completion| {
            plain &= completion.io.is_plain();
            finished.push_back(completion);
        });
        !plain && self.note_from(old)
    }

    /// Before any of them is answered: what succeeded beside a failed flush isn't known to be stable.
    #[cold]
    fn note_from(&mut self, old: usize) -> bool {
        let mut finished = std::mem::take(&mut self.finished);
        finished.iter().skip(old).for_each(|completion| self.note(completion));
        finished.append(&mut self.finished);
        let mut at = old;
        for _ in old..finished.len() {
            let Some(completion) = finished.get(at).filter(|_| !self.overlap.is_empty()) else {
                break;
            };
            // The order among them means nothing: in an engine that keeps it none ever is.
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

    /// Sees what an operation that was to make something stable has come to.
    fn note(&mut self, completion: &Completion) {
        let Completion { io, result } = completion;
        if io.is_stable() {
            self.overlap.end(io.tag());
        }
        if result.is_err() && io.is_loss() && self.live.durability().lose() {
            self.loss = Some(io.tag());
        }
        for io in self.flushes.ended(io).into_iter().flatten() {
            let completion = Completion { io, result: Ok(()) };
            self.finished.extend(self.overlap.hold(completion));
        }
    }

    /// Whether an operation that succeeded has done all that it was to do.
    #[inline]
    pub(crate) fn is_ok(&self, io: &Io) -> bool {
        !(io.is_stable() && self.live.durability().is_lost())
    }

    /// Whether the failure of the operation with this tag is the one that made the disk lose its
    /// durability. Only once.
    pub(crate) fn is_loss(&mut self, tag: u64) -> bool {
        self.loss.take_if(|loss| *loss == tag).is_some()
    }

    /// Whether something is finished and not looked at.
    pub(crate) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// What finished first.
    #[inline]
    pub(crate) fn next_finished(&mut self) -> Option<Completion> {
        self.finished.pop_front()
    }

    /// Operations in the engine, or waiting for another that is.
    pub(crate) fn in_flight(&self) -> usize {
        let waiting = self.flushes.kept().saturating_add(self.overlap.held());
        self.engine.in_flight().saturating_add(waiting)
    }

    /// Everything that the engine doesn't have: of a worker that is dropped.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Io> {
        let Self { taken, finished, flushes, overlap, .. } = self;
        let finished =
            finished.drain(..).chain(overlap.take_held()).map(|completion| completion.io);
        taken.drain(..).chain(finished).chain(flushes.take_kept())
    }
}

/// What becomes of ranges that were taken and not begun when the worker was cancelled.
fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

/// Whether that is it, and no error of the host.
pub(crate) fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}
