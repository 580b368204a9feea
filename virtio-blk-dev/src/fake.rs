//! An image and an engine for tests, in memory, with fault injection.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::buffers::{Sink, Source};
use crate::engine::{Completion, Engine, Io, SyncEngine};
use crate::image::{Commands, Image, Lifetime, Topology};

/// A fault injected into one call of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this errno.
    Errno(i32),
    /// It transfers at most this many bytes; 0 is like a truncated file.
    Short(usize),
}

/// The value of a discarded byte. It isn't zero, so that tests don't rely on zeroes.
pub const DISCARDED: u8 = 0xdd;

/// The value of a securely erased byte.
pub const ERASED: u8 = 0xff;

/// An image in memory that behaves like a file: a write beyond its end extends it, data that wasn't flushed is
/// lost with the power, and one opened for reading can't be written.
#[derive(Debug)]
pub struct FakeImage {
    bytes: Mutex<Vec<u8>>,
    stable: Mutex<Vec<u8>>,
    faults: Mutex<VecDeque<Fault>>,
    capacity: AtomicU64,
    read_only: bool,
    topology: Topology,
    commands: Commands,
    lifetime: Lifetime,
    flushes: AtomicU64,
}

impl FakeImage {
    /// An image with these contents, on stable storage.
    pub fn new(bytes: Vec<u8>, read_only: bool) -> Self {
        Self {
            capacity: AtomicU64::new(bytes.len() as u64),
            stable: Mutex::new(bytes.clone()),
            bytes: Mutex::new(bytes),
            faults: Mutex::default(),
            read_only,
            topology: Topology::default(),
            commands: Commands::default(),
            lifetime: Lifetime::default(),
            flushes: AtomicU64::new(0),
        }
    }

    /// Sets the topology.
    pub fn with_topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Sets the commands that it supports.
    pub fn with_commands(mut self, commands: Commands) -> Self {
        self.commands = commands;
        self
    }

    /// Sets the wear that it reports.
    pub fn with_lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self.commands.lifetime = true;
        self
    }

    /// Resizes the image; new bytes are zero.
    pub fn resize(&self, capacity: u64) {
        let len = usize::try_from(capacity).unwrap_or(usize::MAX);
        lock(&self.bytes).resize(len, 0);
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Adds a fault to those of the next calls, one for each.
    pub fn inject(&self, fault: Fault) {
        lock(&self.faults).push_back(fault);
    }

    /// A copy of the contents.
    pub fn bytes(&self) -> Vec<u8> {
        self.with_bytes(<[u8]>::to_vec)
    }

    /// Calls a function with the contents.
    pub fn with_bytes<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&lock(&self.bytes))
    }

    /// The contents after a loss of power: those of the last flush.
    pub fn stable(&self) -> Vec<u8> {
        lock(&self.stable).clone()
    }

    /// The number of flushes so far.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Fills the whole units of a range, if there are units at all; what is left of the range
    /// stays as it is.
    fn fill(&self, unit: Option<u32>, offset: u64, len: u64, value: u8) -> io::Result<()> {
        self.limit()?;
        let unit = unit.map(u64::from).ok_or(io::ErrorKind::Unsupported)?;
        if self.read_only {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let mut bytes = lock(&self.bytes);
        let end = offset.checked_add(len).filter(|end| *end <= bytes.len() as u64);
        let end = end.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
        let start = offset.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
        let end = end.saturating_sub(end.checked_rem(unit).unwrap_or(0));
        if let (Ok(start), Ok(end)) = (start.try_into(), end.try_into()) {
            let place: Option<&mut [u8]> = bytes.get_mut::<std::ops::Range<usize>>(start..end);
            place.unwrap_or_default().fill(value);
        }
        Ok(())
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
        self.capacity.load(Ordering::Relaxed)
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn topology(&self) -> Topology {
        self.topology
    }

    fn commands(&self) -> Commands {
        self.commands
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

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fill(self.commands.discard, offset, len, DISCARDED)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.fill(self.commands.write_zeroes.then_some(1), offset, len, 0)
    }

    fn secure_erase(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fill(self.commands.secure_erase.map(|_| 1), offset, len, ERASED)
    }

    fn lifetime(&self) -> io::Result<Lifetime> {
        self.limit()?;
        let tells = self.commands.lifetime.then_some(self.lifetime);
        tells.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// An engine that completes late and out of order.
///
/// Each call of [`poll_completions`](Engine::poll_completions) carries out some of the operations in flight;
/// which ones depends on the seed.
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
    /// A pipe can't be made.
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

    fn lifetime(&self) -> io::Result<Lifetime> {
        self.inner.lifetime()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_does_what_it_says_and_no_more() {
        let plain = FakeImage::new(vec![1; 4096], false);
        for result in
            [plain.discard(0, 512), plain.write_zeroes(0, 512, true), plain.secure_erase(0, 512)]
        {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
        assert!(plain.lifetime().is_err());
        assert!(plain.bytes() == [1; 4096]);

        let all = Commands {
            discard: Some(1024),
            write_zeroes: true,
            secure_erase: Some(512),
            ..Commands::default()
        };
        let wear = Lifetime { pre_eol_info: 1, ..Lifetime::default() };
        let image = FakeImage::new(vec![1; 4096], false).with_commands(all).with_lifetime(wear);
        image.discard(512, 2048).unwrap();
        image.discard(0, 512).unwrap();
        image.write_zeroes(2048, 512, false).unwrap();
        image.secure_erase(3584, 512).unwrap();
        let expected =
            [vec![1; 1024], vec![DISCARDED; 1024], vec![0; 512], vec![1; 1024], vec![ERASED; 512]];
        assert!(image.bytes() == expected.concat());
        assert!(image.stable() == [1; 4096]);
        assert_eq!(image.lifetime().unwrap(), wear);
        assert_eq!(image.discard(3584, 1024).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        image.inject(Fault::Errno(libc::EIO));
        assert_eq!(image.discard(0, 1024).unwrap_err().raw_os_error(), Some(libc::EIO));
        image.resize(8192);
        assert_eq!(image.capacity(), 8192);
        image.discard(4096, 1024).unwrap();

        let read_only = FakeImage::new(vec![1; 4096], true).with_commands(all);
        assert_eq!(read_only.discard(0, 1024).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
