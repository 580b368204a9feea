use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::inline::Inline;
use super::no_room::is_no_room;
use super::{Completion, Engine, Io, Operation};
use crate::image::{Flusher, Image, Lifetime, RawImage};

/// A synchronous engine: carries out each operation when it is submitted, by system calls that block the
/// thread. Works on every kernel.
pub struct SyncEngine<I: ?Sized> {
    image: Arc<I>,
    /// Used for flushes instead of the image, if the image has one.
    pub(super) flusher: Option<Box<dyn Flusher>>,
    /// For a thread that must not block.
    inline: Inline,
}

impl SyncEngine<RawImage> {
    /// Open file descriptions of a writable image that an engine uses for itself: see
    /// [`RawOptions::spares`](crate::RawOptions::spares).
    pub const DESCRIPTIONS: u16 = 1;
}

impl<I: Image + ?Sized> SyncEngine<I> {
    /// An engine over `image`. An image can have several.
    pub fn new(image: Arc<I>) -> Self {
        let flusher = image.flusher();
        let inline = image.cached_file().map_or_else(Inline::never, Inline::new);
        Self { image, flusher, inline }
    }

    /// Flushes everything written to stable storage.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.flusher.as_ref().map_or_else(|| self.image.flush(), |flusher| flusher.flush())
    }

    /// Carries out what is left of `io`.
    pub(super) fn perform(&self, io: &mut Io) -> io::Result<()> {
        let (offset, len) = (io.offset(), io.remaining());
        match io.operation() {
            Operation::Read(_) => return self.transfer(io),
            Operation::Write(_) => {
                let result = self.transfer(io);
                if result.as_ref().is_err_and(is_no_room) {
                    io.set_no_space();
                }
                result?;
            }
            Operation::Flush => return self.flush(),
            Operation::Discard => self.image.discard(offset, len)?,
            Operation::WriteZeroes { unmap } => self.image.write_zeroes(offset, len, unmap)?,
            Operation::SecureErase => self.image.secure_erase(offset, len)?,
        }
        if io.is_durable() { self.flush() } else { Ok(()) }
    }

    /// Transfers all data: continues short transfers, and repeats interrupted ones.
    fn transfer(&self, io: &mut Io) -> io::Result<()> {
        while io.remaining() > 0 {
            let (result, ended) = match io.operation() {
                Operation::Read(sink) => {
                    (self.image.read_vectored_at(sink, io.offset()), io::ErrorKind::UnexpectedEof)
                }
                Operation::Write(source) => {
                    (self.image.write_vectored_at(source, io.offset()), io::ErrorKind::WriteZero)
                }
                _ => break,
            };
            match result {
                Ok(0) => return Err(ended.into()),
                Ok(n) => io.advance(n as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<I: Image + ?Sized> Engine for SyncEngine<I> {
    fn submit(&mut self, mut io: Io) -> Option<Completion> {
        let result = self.perform(&mut io);
        Some(Completion { io, result })
    }

    fn try_alone(&mut self, mut io: Io) -> Result<Completion, Io> {
        let end = io.offset().checked_add(io.remaining());
        // The kernel would extend the file.
        let is_within = end.is_some_and(|end| end <= self.image.capacity());
        let file = self.image.cached_file().filter(|_| is_within);
        let attempt = |file| self.inline.attempt_without_blocking(file, &mut io);
        match file.and_then(attempt) {
            Some(result) => Ok(Completion { io, result }),
            None => Err(io),
        }
    }

    fn completes_in_order(&self) -> bool {
        true
    }

    fn poll_completions(&mut self, _sink: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn lifetime(&self) -> io::Result<Lifetime> {
        self.image.lifetime()
    }
}
