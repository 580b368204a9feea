use std::io::ErrorKind;
use std::os::fd::BorrowedFd;

use super::{Completion, Engine, Io};

/// Takes the place of an engine that was taken back from its worker.
pub(crate) struct Taken;

impl Engine for Taken {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        Some(Completion { io, result: Err(ErrorKind::Unsupported.into()) })
    }

    fn poll_completions(&mut self, _sink: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }
}
