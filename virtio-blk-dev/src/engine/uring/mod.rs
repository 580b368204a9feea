//! The engine over io_uring.

mod bounce_buffers;
mod config;
mod error;
mod flow;
mod pool;
mod ring;
mod rings;
mod setup;
mod slots;
mod sqe;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{squeue, types};

use super::inline::{Inline, is_memory};
use super::sync::SyncEngine;
use super::{Completion, Engine, EngineFault, Io, StillInUse};
use crate::engine::wait::wait_readable;
use crate::image::{Image, Lifetime, RawImage};

use bounce_buffers::BounceBuffers;
use ring::Ring;
use slots::Slots;
use sqe::Target;

#[cfg(all(test, not(miri)))]
mod tests;

pub use config::UringConfig;
pub use error::UringError;
pub use pool::BouncePool;
pub use rings::RingPool;

/// An engine over io_uring: many operations in flight, each batch submitted by one system call, completed
/// in any order. Use [`SyncEngine`](crate::SyncEngine) where the kernel doesn't have or allow io_uring.
///
/// Nothing starts before [`commit`](Engine::commit). An operation that needn't wait for a device may be done
/// synchronously, see [`UringConfig::inline`]; so there may be completions after a commit although the
/// [descriptor](Engine::as_fd) isn't readable.
///
/// The engine may be used by any thread, by one at a time.
pub struct UringEngine {
    ring: Ring,
    slots: Slots,
    /// Slots that wait for a place in the ring, in order of submission.
    waiting: VecDeque<u32>,
    /// How many of them, from the front, are committed.
    committed: usize,
    /// Operations that were completed without the ring.
    done: Vec<Completion>,
    /// The operations that a broken ring didn't take have been carried out.
    fallback_done: bool,
    broken_wait: BrokenRingWait,
    inline: Inline,
    /// For an image that is open for direct I/O.
    bounce: Option<BounceBuffers>,
    target: Target,
    /// Carries out what the ring can't. Its flushes, which use another open file description than
    /// `target`, also tell a lack of space from a write-back error.
    sync_engine: SyncEngine<RawImage>,
    image: Arc<RawImage>,
    /// The file of `target`, if it isn't the image's: an open file description of this queue's own, whose
    /// write-back errors no other queue consumes.
    _file: Option<Arc<File>>,
}

/// How long to wait for the operations in a broken ring: longer than working storage takes.
const BROKEN_RING_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait for the operations in a broken ring.
#[derive(Clone, Copy, Debug)]
enum BrokenRingWait {
    /// It may wait for so long in all.
    NotStarted(Duration),
    /// It has begun to wait, until then.
    Until(Instant),
}

impl UringEngine {
    /// Open file descriptions of a writable image that an engine uses for itself, one for the ring and one for
    /// its synchronous calls: see [`RawOptions::spares`](crate::RawOptions::spares).
    pub const DESCRIPTIONS: u16 = 2;

    /// An engine over `image` with up to `depth` operations in the kernel; more are queued in the engine.
    ///
    /// # Errors
    /// See [`UringError`].
    pub fn new(image: Arc<RawImage>, depth: u16) -> Result<Self, UringError> {
        Self::with_config(image, &UringConfig { depth, ..UringConfig::default() })
    }

    /// Whether this process can use io_uring.
    ///
    /// # Errors
    /// What is missing, and what can be done about it.
    pub fn check() -> Result<(), UringError> {
        Ring::check()
    }

    /// As [`new`](Self::new), with all options.
    ///
    /// # Errors
    /// See [`UringError`].
    pub fn with_config(image: Arc<RawImage>, config: &UringConfig) -> Result<Self, UringError> {
        let own = image.reopen();
        let file = own.as_ref().map_or(image.as_fd(), |own| own.as_fd());
        let (depth, ring, file, flags) = match &config.rings {
            Some(rings) => {
                let ring = Ring::from_pool(rings, file)?;
                (rings.depth(), ring, types::Fd(0), squeue::Flags::FIXED_FILE)
            }
            None => {
                let depth = config.depth.clamp(1, 4096);
                let file = types::Fd(file.as_raw_fd());
                (depth, Ring::new(depth.into())?, file, squeue::Flags::empty())
            }
        };
        let capacity = usize::from(depth);
        // A file in memory has no device, and takes any buffer.
        let bounce = (image.is_direct() && !is_memory(image.as_fd())).then(|| {
            BounceBuffers::new(config.bounce.clone(), image.alignment(), config.direct_into_guest)
        });
        let commands = image.commands();
        // Block devices discard by ioctls, which the image makes.
        let is_file = !image.is_block_device();
        let target = Target {
            file,
            flags,
            discard: is_file && commands.discard.is_some(),
            write_zeroes: is_file && commands.write_zeroes,
            unmap: is_file && commands.write_zeroes && commands.write_zeroes_may_unmap,
        };
        Ok(Self {
            ring,
            slots: Slots::with_capacity(capacity),
            waiting: VecDeque::with_capacity(capacity),
            committed: 0,
            done: Vec::with_capacity(capacity),
            fallback_done: false,
            broken_wait: BrokenRingWait::NotStarted(BROKEN_RING_TIMEOUT),
            inline: match config.inline && bounce.is_none() {
                true => Inline::new(image.as_fd()),
                false => Inline::never(),
            },
            bounce,
            target,
            sync_engine: SyncEngine::new(Arc::clone(&image)),
            image,
            _file: own,
        })
    }
}

impl Engine for UringEngine {
    fn submit(&mut self, mut io: Io) -> Option<Completion> {
        if let Err(error) = self.check_change(&io) {
            io.set_no_space();
            return Some(Completion { io, result: Err(error) });
        }
        let index = self.slots.insert(io, true);
        self.waiting.push_back(index);
        None
    }

    fn submit_alone(&mut self, mut io: Io) -> Option<Completion> {
        if self.committed < self.waiting.len() {
            // Others are waiting to be committed: it is submitted with them.
            let completion = self.submit(io);
            self.commit();
            return completion;
        }
        if let Err(error) = self.check_change(&io) {
            io.set_no_space();
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

    fn try_alone(&mut self, mut io: Io) -> Result<Completion, Io> {
        // What the ring would keep in flight is not begun.
        if self.in_flight() > 0 || self.check_change(&io).is_err() {
            return Err(io);
        }
        match self.inline.attempt_without_blocking(self.image.as_fd(), &mut io) {
            Some(result) => Ok(Completion { io, result }),
            None => Err(io),
        }
    }

    fn commit(&mut self) {
        let batch = self.waiting.len().saturating_sub(self.committed);
        self.committed = self.waiting.len();
        if batch > 0 {
            self.submit_committed(batch);
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
                self.submit_committed(0);
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
        // The kernel had no memory for these, and has nothing in flight whose completion would be a reason
        // to try again.
        if self.in_flight() > 0 && self.done.is_empty() && self.ring.in_kernel() == 0 {
            self.submit_committed(0);
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
    /// Waits for a completion of the operations in the kernel.
    fn wait_for_kernel(&mut self) -> Result<(), StillInUse> {
        let mut timeout = None;
        if self.ring.is_broken() {
            let now = Instant::now();
            let end = match self.broken_wait {
                BrokenRingWait::NotStarted(time) => now.checked_add(time).unwrap_or(now),
                BrokenRingWait::Until(end) => end,
            };
            self.broken_wait = BrokenRingWait::Until(end);
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
    /// Waits for the operations in the kernel. They aren't cancelled: the kernel can't cancel I/O that a
    /// device has, and nothing else takes longer than that.
    fn drop(&mut self) {
        loop {
            while let Some((index, _)) = self.ring.next() {
                drop(self.slots.remove(index as u32));
            }
            // Entries that the kernel hasn't taken by now are never submitted.
            if self.ring.in_kernel() == 0 || self.wait_for_kernel().is_err() {
                break;
            }
        }
        if self.ring.in_kernel() > 0 {
            // The kernel may still access their memory and buffers, and it can't be known until when.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}
