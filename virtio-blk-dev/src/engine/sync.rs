use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::io::is_no_room;
use super::{Completion, Engine, Io, Operation};
use crate::image::{Flusher, Image, Lifetime};

/// Carries out each operation where it is submitted: works on every kernel, and blocks its thread
/// for the time of the I/O.
pub struct SyncEngine<I: ?Sized> {
    image: Arc<I>,
    /// By what it flushes, if not by the image itself.
    pub(super) flusher: Option<Box<dyn Flusher>>,
}

impl<I: Image + ?Sized> SyncEngine<I> {
    /// An engine over `image`, which may have others.
    pub fn new(image: Arc<I>) -> Self {
        let flusher = image.flusher();
        Self { image, flusher }
    }

    /// Brings everything written to stable storage.
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
                    io.refuse();
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

    /// Short transfers are continued, interrupted ones repeated.
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
