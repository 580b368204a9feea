use std::io;
use std::os::fd::BorrowedFd;

use super::{Completion, Engine, EngineFault, Io, StillInUse};
use crate::image::Lifetime;

/// Implements [`Engine`] for a pointer to one: to lend it to a worker, or for a trait object.
macro_rules! forward {
    ($pointer:ty) => {
        impl<E: Engine + ?Sized> Engine for $pointer {
            fn submit(&mut self, io: Io) -> Option<Completion> {
                (**self).submit(io)
            }

            fn completes_in_order(&self) -> bool {
                (**self).completes_in_order()
            }

            fn commit(&mut self) {
                (**self).commit();
            }

            fn submit_alone(&mut self, io: Io) -> Option<Completion> {
                (**self).submit_alone(io)
            }

            fn try_alone(&mut self, io: Io) -> Result<Completion, Io> {
                (**self).try_alone(io)
            }

            fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion)) {
                (**self).poll_completions(sink);
            }

            fn as_fd(&self) -> Option<BorrowedFd<'_>> {
                (**self).as_fd()
            }

            fn in_flight(&self) -> usize {
                (**self).in_flight()
            }

            fn wait(&mut self) -> Result<(), StillInUse> {
                (**self).wait()
            }

            fn drain(&mut self, sink: &mut dyn FnMut(Completion)) -> Result<(), StillInUse> {
                (**self).drain(sink)
            }

            fn take_fault(&mut self) -> Option<EngineFault> {
                (**self).take_fault()
            }

            fn idle(&mut self) {
                (**self).idle();
            }

            fn lifetime(&self) -> io::Result<Lifetime> {
                (**self).lifetime()
            }
        }
    };
}

forward!(Box<E>);
forward!(&mut E);
