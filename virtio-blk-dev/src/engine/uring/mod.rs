//! The engine over io_uring.

mod bounce;
mod config;
mod error;
mod flow;
mod inline;
mod ring;
mod slots;
mod sqe;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::types;

use super::sync::SyncEngine;
use super::{Completion, Engine, Io};
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
    /// Of an image that is open for direct I/O.
    bounce: Option<Bounce>,
    target: Target,
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
        let mut ring = Ring::new(u32::from(depth))?;
        let capacity = usize::from(depth);
        // Memory has no device to go to directly, and takes any buffer.
        let bounce =
            (bounce::is_direct(image.as_fd()) && !inline::is_memory(image.as_fd())).then(|| {
                let block = u64::from(image.topology().logical_block_size);
                Bounce::new(config.bounce_size, block, config.direct_into_guest, &mut ring)
            });
        let commands = image.commands();
        // A device discards by other calls, which the image knows.
        let file = !image.is_block_device();
        let target = Target {
            file: types::Fd(image.as_fd().as_raw_fd()),
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
            inline: Inline::new(image.as_fd(), config.inline && bounce.is_none()),
            bounce,
            target,
            floor: SyncEngine::new(Arc::clone(&image)),
            image,
        })
    }
}

impl Engine for UringEngine {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        if let Err(error) = self.check_change(&io) {
            return Some(Completion { io, result: Err(error) });
        }
        let index = self.slots.insert(io, true);
        self.waiting.push_back(index);
        None
    }

    fn submit_alone(&mut self, mut io: Io) -> Option<Completion> {
        if let Err(error) = self.check_change(&io) {
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
        // What a broken ring holds may never come back; its memory stays mapped.
        let held = if self.ring.is_broken() { self.waiting.len() } else { self.slots.len() };
        held.saturating_add(self.done.len())
    }

    fn lifetime(&self) -> io::Result<Lifetime> {
        self.image.lifetime()
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
        } else if let Some(bounce) = self.bounce.take() {
            // SAFETY: it has none of the buffers in hand.
            unsafe { bounce.free() };
        }
    }
}
