use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::{Completion, Engine, Io, Operation};
use crate::image::{Image, Lifetime};

/// Carries out each operation where it is submitted: works on every kernel, and blocks its thread
/// for the time of the I/O.
pub struct SyncEngine<I: ?Sized> {
    image: Arc<I>,
}

impl<I: Image + ?Sized> SyncEngine<I> {
    /// An engine over `image`, which may have others.
    pub fn new(image: Arc<I>) -> Self {
        Self { image }
    }

    /// Carries out what is left of `io`.
    pub(super) fn perform(&self, io: &mut Io) -> io::Result<()> {
        let (offset, len) = (io.offset(), io.remaining());
        match io.operation() {
            Operation::Read(_) => return self.transfer(io),
            Operation::Write(_) => self.transfer(io)?,
            Operation::Flush => return self.image.flush(),
            Operation::Discard => self.image.discard(offset, len)?,
            Operation::WriteZeroes { unmap } => self.image.write_zeroes(offset, len, unmap)?,
            Operation::SecureErase => self.image.secure_erase(offset, len)?,
        }
        if io.is_durable() { self.image.flush() } else { Ok(()) }
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
