//! Engines carry out I/O on an image, one request at a time or many at once.

mod fault;
mod forward;
mod in_order;
mod io;
mod sync;
mod uring;
mod wait;

use std::io::{Error, ErrorKind, Result as IoResult};
use std::os::fd::BorrowedFd;

use crate::image::Lifetime;
use wait::wait_readable;

pub use fault::{EngineFault, StillInUse};
pub use in_order::InOrder;
pub(crate) use io::{Command, Data, Spare};
pub use io::{Io, Operation};
pub use sync::SyncEngine;
pub use uring::{BouncePool, UringConfig, UringEngine, UringError};

/// Carries out the I/O of one queue. Completions may come in any order.
///
/// An [`Io`] is answered by handing it back in a [`Completion`]; until then the guest memory it
/// names stays mapped. So an engine must keep it as long as the kernel may touch that memory, and
/// an engine that is dropped first waits for what the kernel has in hand.
///
/// What was [committed](Self::commit) comes to an end without any further call but
/// [`poll_completions`](Self::poll_completions): at the latest when the
/// [descriptor](Self::as_fd) becomes readable it has something to hand over.
pub trait Engine: Send {
    /// Takes one operation, and hands it back if it is finished at once. Its failure, too, is a
    /// completion.
    fn submit(&mut self, io: Io) -> Option<Completion>;

    /// Every operation is finished when it is submitted, and handed back there and then, so that
    /// requests are used in the order in which they came (`VIRTIO_F_IN_ORDER`, virtio 1.2
    /// §2.7.9.1). It doesn't change.
    fn completes_in_order(&self) -> bool {
        false
    }

    /// Has everything submitted so far begin, in one system call where that is possible. Until then
    /// an engine may leave it lying.
    fn commit(&mut self) {}

    /// [Submits](Self::submit) an operation, and [commits](Self::commit) it and all that was
    /// submitted before: an engine may have a shorter way for one that comes alone.
    fn submit_alone(&mut self, io: Io) -> Option<Completion> {
        let completion = self.submit(io);
        self.commit();
        completion
    }

    /// Hands over what has completed since the last call. Doesn't block.
    fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion));

    /// Readable when [`poll_completions`](Self::poll_completions) has something to hand over that
    /// it hadn't directly after the last [`commit`](Self::commit). `None` if nothing is ever left
    /// then.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Operations submitted and not handed over yet: their guest memory is in use.
    fn in_flight(&self) -> usize;

    /// Blocks until [`poll_completions`](Self::poll_completions) has something to hand over. To be
    /// called when it had nothing, though something committed is [in flight](Self::in_flight).
    ///
    /// # Errors
    /// What is in flight may never come back: see [`StillInUse`].
    fn wait(&mut self) -> Result<(), StillInUse> {
        let waited = match self.as_fd() {
            Some(fd) => wait_readable(fd, None).map(drop),
            None => Err(ErrorKind::Unsupported.into()),
        };
        waited.map_err(|source| StillInUse::new(self.in_flight(), Some(source)))
    }

    /// Commits, and hands over all there is until nothing is [in flight](Self::in_flight). Blocks
    /// meanwhile.
    ///
    /// # Errors
    /// As of [`wait`](Self::wait).
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

    /// The engine works worse than it was made to, or not any more: why, once. What it is given is
    /// answered all the same. A caller that can should take another one.
    fn take_fault(&mut self) -> Option<EngineFault> {
        None
    }

    /// Nothing will be submitted for some time: the engine gives back what it needs only while it
    /// works, and others may want.
    fn idle(&mut self) {}

    /// As [`Image::lifetime`](crate::Image::lifetime). It may take as long as a file in sysfs does.
    ///
    /// # Errors
    /// The host's.
    fn lifetime(&self) -> IoResult<Lifetime> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// A finished operation.
#[derive(Debug)]
pub struct Completion {
    /// The operation, handed back.
    pub io: Io,
    /// All of its data was transferred, or an error of the host.
    pub result: Result<(), Error>,
}
