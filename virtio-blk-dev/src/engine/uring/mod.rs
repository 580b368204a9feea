//! The engine over io_uring.

mod bounce;
mod config;
mod error;
mod flow;
mod inline;
mod pool;
mod ring;
mod slots;
mod sqe;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types;

use super::sync::SyncEngine;
use super::{Completion, Engine, EngineFault, Io, StillInUse};
use crate::engine::wait::wait_readable;
use crate::image::{Image, Lifetime, RawImage};

use bounce::Bounce;
use inline::Inline;
use ring::Ring;
use slots::Slots;
use sqe::Target;

#[cfg(all(test, not(miri)))]
mod tests;

pub use config::UringConfig;
pub use error::UringError;
pub use pool::BouncePool;

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
    /// What a broken ring left was carried out.
    taken_back: bool,
    patience: Patience,
    inline: Inline,
    /// Of an image that is open for direct I/O.
    bounce: Option<Bounce>,
    target: Target,
    /// Does what the ring can't, and tells whose fault an `ENOSPC` is: by an open file description
    /// that isn't `target`'s.
    floor: SyncEngine<RawImage>,
    image: Arc<RawImage>,
    /// What `target` names, unless there is only the image's: no other queue takes its write-back
    /// errors.
    _file: Option<File>,
}

/// How long a broken ring's operations are waited for: longer than a storage takes that works.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is left of [`PATIENCE`].
#[derive(Clone, Copy, Debug)]
enum Patience {
    For(Duration),
    Until(Instant),
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

    /// Whether this kernel lets this process have such an engine.
    ///
    /// # Errors
    /// What it lacks, and what can be done.
    pub fn check() -> Result<(), UringError> {
        Ring::check()
    }

    /// As [`new`](Self::new), with more to choose.
    ///
    /// # Errors
    /// See [`UringError`].
    pub fn with_config(image: Arc<RawImage>, config: &UringConfig) -> Result<Self, UringError> {
        let depth = config.depth.clamp(1, 4096);
        let ring = Ring::new(u32::from(depth))?;
        let capacity = usize::from(depth);
        // Memory has no device to go to directly, and takes any buffer.
        let bounce = (image.is_direct() && !inline::is_memory(image.as_fd())).then(|| {
            Bounce::new(config.bounce.clone(), image.alignment(), config.direct_into_guest)
        });
        let commands = image.commands();
        let own = image.reopen();
        // A device discards by other calls, which the image knows.
        let file = !image.is_block_device();
        let target = Target {
            file: types::Fd(own.as_ref().map_or(image.as_fd(), File::as_fd).as_raw_fd()),
            discard: file && commands.discard.is_some(),
            write_zeroes: file && commands.write_zeroes,
            unmap: file && commands.write_zeroes && commands.write_zeroes_may_unmap,
        };
        Ok(Self {
            ring,
            slots: Slots::with_capacity(capacity),
            waiting: VecDeque::with_capacity(capacity),
            committed: 0,
            done: Vec::with_capacity(capacity),
            taken_back: false,
            patience: Patience::For(PATIENCE),
            inline: Inline::new(image.as_fd(), config.inline && bounce.is_none()),
            bounce,
            target,
            floor: SyncEngine::new(Arc::clone(&image)),
            image,
            _file: own,
        })
    }
}

impl Engine for UringEngine {
    fn submit(&mut self, mut io: Io) -> Option<Completion> {
        if let Err(error) = self.check_change(&io) {
            io.refuse();
            return Some(Completion { io, result: Err(error) });
        }
        let index = self.slots.insert(io, true);
        self.waiting.push_back(index);
        None
    }

    fn submit_alone(&mut self, mut io: Io) -> Option<Completion> {
        if self.committed < self.waiting.len() {
            // It isn't alone: what lies here is begun with it.
            let completion = self.submit(io);
            self.commit();
            return completion;
        }
        if let Err(error) = self.check_change(&io) {
            io.refuse();
            return Some(Completion { io, result: Err(error) });
        }
        if let Some(result) = self.inline.attempt(self.image.as_fd(), &mut io, 1) {
            return Some(Completion { io, result });
        }
        let index = self.slots.insert(io, false);
        self.waiting.push_back(index);
        self.commit();
        None
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
            if self.committed > 0 || self.ring.queued() > 0 {
                self.hand_over(0);
            }
        }
        self.done.drain(..).for_each(sink);
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.as_fd())
    }

    fn in_flight(&self) -> usize {
        self.slots.len().saturating_add(self.done.len())
    }

    fn wait(&mut self) -> Result<(), StillInUse> {
        self.commit();
        // What the kernel had no memory for, and has given nothing back since that would tell.
        if self.in_flight() > 0 && self.done.is_empty() && self.ring.in_kernel() == 0 {
            self.hand_over(0);
        }
        if self.done.is_empty() && self.ring.in_kernel() > 0 {
            return self.wait_for_kernel();
        }
        Ok(())
    }

    fn take_fault(&mut self) -> Option<EngineFault> {
        let source = self.ring.take_fault()?;
        Some(EngineFault::new(self.ring.held() as usize, source))
    }

    fn idle(&mut self) {
        if let Some(bounce) = &mut self.bounce {
            bounce.idle();
        }
    }

    fn lifetime(&self) -> io::Result<Lifetime> {
        self.image.lifetime()
    }
}

impl UringEngine {
    /// Waits until the kernel has finished something of what it has in hand.
    fn wait_for_kernel(&mut self) -> Result<(), StillInUse> {
        let mut timeout = None;
        if self.ring.is_broken() {
            let now = Instant::now();
            let end = match self.patience {
                Patience::For(time) => now.checked_add(time).unwrap_or(now),
                Patience::Until(end) => end,
            };
            self.patience = Patience::Until(end);
            timeout = Some(end.saturating_duration_since(now));
        }
        let source = match wait_readable(self.ring.as_fd(), timeout) {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            Err(error) => Some(error),
        };
        Err(StillInUse::new(self.ring.in_kernel() as usize, source))
    }
}

impl Drop for UringEngine {
    /// Waits for what the kernel has in hand. Nothing is cancelled: the kernel doesn't cancel I/O
    /// on files that a device has, and the rest doesn't take longer than that.
    fn drop(&mut self) {
        loop {
            while let Some((index, _)) = self.ring.next() {
                drop(self.slots.remove(index as u32));
            }
            // What the kernel has not taken by now it never will.
            if self.ring.in_kernel() == 0 || self.wait_for_kernel().is_err() {
                break;
            }
        }
        if self.ring.in_kernel() > 0 {
            // The kernel may still touch their memory and buffers, and nothing will tell when that is over.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}
