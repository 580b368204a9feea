//! An engine that is late.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use virtio_blk_dev::fake::FakeImage;
use virtio_blk_dev::{Completion, Engine, Io, Operation, StillInUse, SyncEngine};

/// An engine that finishes nothing until it is told to, or waited for. Clones are the same one.
#[derive(Clone)]
pub struct Late {
    pub image: Arc<FakeImage>,
    held: Arc<Mutex<Vec<Io>>>,
    done: Arc<Mutex<Vec<Completion>>>,
}

impl Late {
    pub fn new(image: &Arc<FakeImage>) -> Self {
        Self { image: Arc::clone(image), held: Arc::default(), done: Arc::default() }
    }

    /// Finishes what it has in hand, in the order it came.
    pub fn release(&self) {
        let mut inner = SyncEngine::new(Arc::clone(&self.image));
        let held: Vec<Io> = self.held.lock().unwrap().drain(..).collect();
        let finished = held.into_iter().filter_map(|io| inner.submit(io));
        self.done.lock().unwrap().extend(finished);
    }

    /// Finishes the operation that came at this place of those in hand, so.
    pub fn end(&self, nth: usize, result: Result<(), i32>) {
        let io = self.held.lock().unwrap().remove(nth);
        let result = result.map_err(std::io::Error::from_raw_os_error);
        self.done.lock().unwrap().push(Completion { io, result });
    }

    pub fn flushes_held(&self) -> usize {
        let held = self.held.lock().unwrap();
        held.iter().filter(|io| matches!(io.operation(), Operation::Flush)).count()
    }
}

impl Engine for Late {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        self.held.lock().unwrap().push(io);
        None
    }

    fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion)) {
        self.done.lock().unwrap().drain(..).for_each(sink);
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        self.held.lock().unwrap().len() + self.done.lock().unwrap().len()
    }

    fn wait(&mut self) -> Result<(), StillInUse> {
        self.release();
        Ok(())
    }
}
