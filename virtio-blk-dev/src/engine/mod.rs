//! I/O engines: they carry out operations on an image, synchronously or asynchronously.

mod fault;
mod forward;
mod in_order;
mod inline;
mod io;
mod no_room;
mod operation;
mod sync;
mod taken;
mod uring;
mod wait;

use std::io::{Error, ErrorKind, Result as IoResult};
use std::os::fd::BorrowedFd;

use crate::image::Lifetime;
use wait::wait_readable;

pub use fault::{EngineFault, StillInUse};
pub use in_order::InOrder;
pub use io::Io;
pub(crate) use io::IoAllocation;
pub use operation::Operation;
pub(crate) use operation::{Command, Data};
pub use sync::SyncEngine;
pub(crate) use taken::Taken;
pub use uring::{BouncePool, RingPool, UringConfig, UringEngine, UringError};

/// Carries out the I/O of one queue. Completions may come in any order.
///
/// An engine completes an [`Io`] by returning it in a [`Completion`]. The guest memory of the `Io` stays
/// mapped as long as the `Io` exists. So an engine must keep it while the kernel may access that memory,
/// and must wait for operations in flight before it is dropped.
///
/// Operations that were [committed](Self::commit) complete without further calls, but for
/// [`poll_completions`](Self::poll_completions), which returns them at the latest when the
/// [descriptor](Self::as_fd) becomes readable.
pub trait Engine: Send {
    /// Submits one operation. Returns it if it completes synchronously. A failure is a completion, too.
    fn submit(&mut self, io: Io) -> Option<Completion>;

    /// Whether [`submit`](Self::submit) completes every operation synchronously, so that requests are used
    /// in the order in which they were made available (`VIRTIO_F_IN_ORDER`, virtio 1.2 §2.7.9.1). The
    /// value is constant.
    fn completes_in_order(&self) -> bool {
        false
    }

    /// Starts everything submitted so far, in one system call where that is possible. Until then an
    /// engine may defer it.
    fn commit(&mut self) {}

    /// [Submits](Self::submit) an operation and [commits](Self::commit) it, with all that was submitted
    /// before. An engine may have a faster path for a single operation.
    fn submit_alone(&mut self, io: Io) -> Option<Completion> {
        let completion = self.submit(io);
        self.commit();
        completion
    }

    /// Carries out a single operation if that needs no wait, on a thread that must not block; nothing is in flight.
    /// Only data that is at hand, as in the page cache, is transferred, by a call that the kernel fails rather than
    /// have it wait.
    ///
    /// # Errors
    /// The operation, to be [submitted](Self::submit) where waiting is allowed. A part of it
    /// [may be done](Io::advance).
    fn try_alone(&mut self, io: Io) -> Result<Completion, Io> {
        Err(io)
    }

    /// Passes the completions since the last call to `sink`. Doesn't block.
    fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion));

    /// Readable when [`poll_completions`](Self::poll_completions) has completions that it didn't have
    /// directly after the last [`commit`](Self::commit). `None` if nothing is ever in flight after a commit.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;

    /// The number of operations submitted and not completed yet: their guest memory is in use.
    fn in_flight(&self) -> usize;

    /// Blocks until [`poll_completions`](Self::poll_completions) has completions. To be called when it had
    /// none while committed operations are [in flight](Self::in_flight).
    ///
    /// # Errors
    /// The operations in flight may never complete: see [`StillInUse`].
    fn wait(&mut self) -> Result<(), StillInUse> {
        let waited = match self.as_fd() {
            Some(fd) => wait_readable(fd, None).map(drop),
            None => Err(ErrorKind::Unsupported.into()),
        };
        waited.map_err(|source| StillInUse::new(self.in_flight(), Some(source)))
    }

    /// Commits, and passes completions to `sink` until nothing is [in flight](Self::in_flight). Blocks
    /// meanwhile.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    fn drain(&mut self, sink: &mut dyn FnMut(Completion)) -> Result<(), StillInUse> {
        self.commit();
        loop {
            self.poll_completions(sink);
            if self.in_flight() == 0 {
                return Ok(());
            }
            self.wait()?;
        }
    }

    /// The engine's failure, if it had one: returned once. Operations are still completed, but a caller
    /// that can should replace the engine.
    fn take_fault(&mut self) -> Option<EngineFault> {
        None
    }

    /// Nothing will be submitted for some time: releases resources that other engines may need.
    fn idle(&mut self) {}

    /// As [`Image::lifetime`](crate::Image::lifetime). May read a file in sysfs.
    ///
    /// # Errors
    /// The host's.
    fn lifetime(&self) -> IoResult<Lifetime> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// A completed operation.
#[derive(Debug)]
pub struct Completion {
    /// The operation.
    pub io: Io,
    /// `Ok` if all of its data was transferred, or the host's error.
    pub result: Result<(), Error>,
}
