//! The engine over io_uring.

mod config;
mod error;
mod inline;
mod ring;
mod slots;
mod sqe;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::sync::SyncEngine;
use super::{Completion, Engine, Io, Operation};
use crate::image::{Image, RawImage};

use inline::Inline;
use ring::Ring;
use slots::{Slots, Stage};
use sqe::Fallocates;

#[cfg(all(test, not(miri)))]
mod tests;

pub use config::UringConfig;
pub use error::UringError;

/// Carries out operations through io_uring: many at once, each batch begun by one system call, and
/// completed in whatever order the storage has. [`SyncEngine`](crate::SyncEngine) is for where the
/// kernel has none, or refuses it.
///
/// Nothing begins before [`commit`](Engine::commit). What need not wait for a device may be done
/// there and then, see [`UringConfig::inline`]; so after a commit there may be something to hand
/// over without the [descriptor](Engine::as_fd) being readable.
///
/// Any thread may use the engine, one after another.
pub struct UringEngine {
    ring: Ring,
    slots: Slots,
    /// Slots that wait for a place in the ring, in the order they came.
    waiting: VecDeque<u32>,
    /// How many of them, from the front, may go into the ring.
    committed: usize,
    /// What was finished without the ring.
    done: Vec<Completion>,
    inline: Inline,
    fallocates: Fallocates,
    floor: SyncEngine<RawImage>,
    image: Arc<RawImage>,
}

impl UringEngine {
    /// An engine over `image` that has the kernel do `depth` operations at once; more wait in the
    /// engine.
    ///
    /// # Errors
    /// See [`UringError`].
    pub fn new(image: Arc<RawImage>, depth: u16) -> Result<Self, UringError> {
        Self::with_config(image, &UringConfig { depth, ..UringConfig::default() })
    }

    /// As [`new`](Self::new), with more to choose.
    ///
    /// # Errors
    /// See [`UringError`].
    pub fn with_config(image: Arc<RawImage>, config: &UringConfig) -> Result<Self, UringError> {
        let depth = config.depth.clamp(1, 4096);
        let ring = Ring::new(u32::from(depth), image.as_fd())?;
        let capacity = usize::from(depth);
        let commands = image.commands();
        let fallocates = Fallocates {
            discard: commands.discard.is_some(),
            write_zeroes: commands.write_zeroes,
            unmap: commands.write_zeroes && commands.write_zeroes_may_unmap,
        };
        Ok(Self {
            ring,
            slots: Slots::with_capacity(capacity),
            waiting: VecDeque::with_capacity(capacity),
            committed: 0,
            done: Vec::with_capacity(capacity),
            inline: Inline::new(image.as_fd(), config.inline),
            fallocates,
            floor: SyncEngine::new(Arc::clone(&image)),
            image,
        })
    }

    /// Begins what is committed, as far as there is room: `batch` of it is new.
    fn hand_over(&mut self, batch: usize) {
        let before = self.ring.held();
        while self.committed > 0 {
            let Some(index) = self.waiting.pop_front() else { break };
            self.committed = self.committed.saturating_sub(1);
            let Some(slot) = self.slots.get_mut(index) else { continue };
            if std::mem::take(&mut slot.fresh) {
                let attempt = self.inline.attempt(self.image.as_fd(), &mut slot.io, batch);
                if let Some(result) = attempt {
                    self.finish(index, result);
                    continue;
                }
            }
            let usable = !self.ring.is_broken();
            match usable.then(|| sqe::entry(slot, self.fallocates)).flatten() {
                None => self.perform(index),
                Some(_) if !self.ring.has_room() => {
                    self.waiting.push_front(index);
                    self.committed = self.committed.saturating_add(1);
                    break;
                }
                Some(entry) => {
                    let entry = entry.user_data(u64::from(index));
                    // SAFETY: segments and memory are the `Io`'s, whose existence keeps the
                    // memory mapped. It rests in its slot, where nobody but `complete` changes or
                    // takes it, until the completion is there; else `drop` leaks it.
                    unsafe { self.ring.push(&entry) };
                }
            }
        }
        if self.ring.held() > before {
            self.ring.enter(0);
        }
    }

    fn finish(&mut self, index: u32, result: io::Result<()>) {
        if let Some(io) = self.slots.remove(index) {
            self.done.push(Completion { io, result });
        }
    }

    /// Carries out what the ring can't.
    fn perform(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let result = match slot.stage {
            Stage::Operation => self.floor.perform(&mut slot.io),
            Stage::Sync => self.image.flush(),
        };
        self.finish(index, result);
    }

    /// Takes a completion from the ring; `None` if there is more to do for its operation.
    fn complete(&mut self, index: u32, result: i32) -> Option<Completion> {
        let slot = self.slots.get_mut(index)?;
        let result = match (slot.io.operation(), slot.stage, result) {
            (.., n) if n < 0 => Err(n.saturating_neg()),
            (Operation::Read(_) | Operation::Write(_), _, n) => {
                slot.io.advance(u64::from(n.unsigned_abs()));
                if slot.io.remaining() > 0 && n > 0 { Err(libc::EINTR) } else { Ok(()) }
            }
            (Operation::Flush, ..) | (_, Stage::Sync, _) => Ok(()),
            _ if slot.io.is_durable() => {
                slot.stage = Stage::Sync;
                Err(libc::EINTR)
            }
            _ => Ok(()),
        };
        let again = match result {
            Err(libc::EINTR | libc::ECANCELED) => true,
            Err(libc::EAGAIN) if !slot.punt => {
                slot.punt = true;
                true
            }
            _ => false,
        };
        if again {
            self.waiting.push_front(index);
            self.committed = self.committed.saturating_add(1);
            return None;
        }
        let io = self.slots.remove(index)?;
        let result = match (result, io.operation()) {
            (Err(errno), _) => Err(io::Error::from_raw_os_error(errno)),
            (Ok(()), Operation::Read(_)) if io.remaining() > 0 => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            (Ok(()), Operation::Write(_)) if io.remaining() > 0 => {
                Err(io::ErrorKind::WriteZero.into())
            }
            _ => Ok(()),
        };
        Some(Completion { io, result })
    }
}

impl Engine for UringEngine {
    fn submit(&mut self, io: Io) {
        let index = self.slots.insert(io);
        self.waiting.push_back(index);
    }

    fn commit(&mut self) {
        let batch = self.waiting.len().saturating_sub(self.committed);
        self.committed = self.waiting.len();
        if batch > 0 {
            self.hand_over(batch);
        }
    }

    fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion)) {
        if self.ring.held() > 0 {
            self.ring.run_task_work();
            while let Some((index, result)) = self.ring.next() {
                if let Some(completion) = self.complete(index as u32, result) {
                    sink(completion);
                }
            }
            if self.committed > 0 {
                self.hand_over(0);
            }
        }
        self.done.drain(..).for_each(sink);
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.as_fd())
    }

    fn in_flight(&self) -> usize {
        // What a broken ring holds may never come back; its memory stays mapped.
        let held = if self.ring.is_broken() { self.waiting.len() } else { self.slots.len() };
        held.saturating_add(self.done.len())
    }
}

impl Drop for UringEngine {
    /// Waits for what the kernel has in hand. Nothing is cancelled: the kernel doesn't cancel I/O
    /// on files that a device has, and the rest doesn't take longer than that.
    fn drop(&mut self) {
        while self.ring.held() > 0 && !self.ring.is_broken() {
            self.ring.enter(1);
            while let Some((index, _)) = self.ring.next() {
                drop(self.slots.remove(index as u32));
            }
        }
        if self.ring.held() > 0 {
            // The kernel may still touch their memory, and nothing will tell when that is over.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}
