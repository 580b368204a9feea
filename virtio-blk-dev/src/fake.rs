//! An image and an engine for tests: in memory, observable, and with faults to order.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::buffers::{Sink, Source};
use crate::engine::{Completion, Engine, Io, SyncEngine};
use crate::image::Image;

/// What goes wrong with one call of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this errno.
    Errno(i32),
    /// It transfers at most this many bytes; 0 is what a file that was cut short does.
    Short(usize),
}

/// An image in memory, which behaves as a file does: what is written past its end makes it grow,
/// what was not flushed is lost with the power, and one opened for reading can't be written.
#[derive(Debug)]
pub struct FakeImage {
    bytes: Mutex<Vec<u8>>,
    stable: Mutex<Vec<u8>>,
    faults: Mutex<VecDeque<Fault>>,
    capacity: u64,
    read_only: bool,
    flushes: AtomicU64,
}

impl FakeImage {
    /// An image of these contents, all of them on stable storage.
    pub fn new(bytes: Vec<u8>, read_only: bool) -> Self {
        Self {
            capacity: bytes.len() as u64,
            stable: Mutex::new(bytes.clone()),
            bytes: Mutex::new(bytes),
            faults: Mutex::default(),
            read_only,
            flushes: AtomicU64::new(0),
        }
    }

    /// Has the next call that no earlier fault is for go wrong.
    pub fn inject(&self, fault: Fault) {
        lock(&self.faults).push_back(fault);
    }

    /// The contents.
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.bytes).clone()
    }

    /// The contents as a loss of power would leave them: those of the last flush.
    pub fn stable(&self) -> Vec<u8> {
        lock(&self.stable).clone()
    }

    /// Flushes so far.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// How many bytes a call may transfer.
    fn limit(&self) -> io::Result<usize> {
        match lock(&self.faults).pop_front() {
            Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Short(limit)) => Ok(limit),
            None => Ok(usize::MAX),
        }
    }
}

impl Image for FakeImage {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_vectored_at(&self, sink: Sink<'_>, offset: u64) -> io::Result<usize> {
        let limit = self.limit()?;
        let bytes = lock(&self.bytes);
        let data = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
        let data = data.unwrap_or_default();
        Ok(sink.copy_from(data.get(..limit).unwrap_or(data)))
    }

    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize> {
        if self.read_only {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let len =
            source.iovecs().iter().fold(0usize, |sum, iovec| sum.saturating_add(iovec.iov_len));
        let mut data = vec![0; len.min(self.limit()?)];
        source.copy_to(&mut data);
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(data.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut bytes = lock(&self.bytes);
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(start..end) {
            place.copy_from_slice(&data);
        }
        Ok(data.len())
    }

    fn flush(&self) -> io::Result<()> {
        self.limit()?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        lock(&self.stable).clone_from(&lock(&self.bytes));
        Ok(())
    }
}

/// An engine that finishes late and in any order, as a queue of a kernel does.
///
/// Each call of [`poll_completions`](Engine::poll_completions) carries out a part of what it has
/// in hand, in an order and of a size that depend on the seed.
pub struct FakeEngine {
    inner: SyncEngine<dyn Image>,
    held: Vec<Io>,
    random: u64,
    /// Readable for as long as the engine lives.
    ready: PipeReader,
    _ready: PipeWriter,
}

impl FakeEngine {
    /// An engine over `image`.
    ///
    /// # Errors
    /// No pipe can be had.
    pub fn new(image: Arc<dyn Image>, seed: u64) -> io::Result<Self> {
        let (ready, mut writer) = io::pipe()?;
        writer.write_all(&[1])?;
        Ok(Self {
            inner: SyncEngine::new(image),
            held: Vec::new(),
            random: seed | 1,
            ready,
            _ready: writer,
        })
    }

    /// A number below `bound`, by xorshift.
    fn random(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random as usize).checked_rem(bound).unwrap_or(0)
    }
}

impl Engine for FakeEngine {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        self.held.push(io);
        None
    }

    fn poll_completions(&mut self, sink: &mut dyn FnMut(Completion)) {
        let count = self.random(self.held.len().saturating_add(1));
        for _ in 0..count {
            let pick = self.random(self.held.len());
            self.inner.submit(self.held.swap_remove(pick)).into_iter().for_each(&mut *sink);
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ready.as_fd())
    }

    fn in_flight(&self) -> usize {
        self.held.len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
