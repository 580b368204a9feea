use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use virtio_blk_dev::fake::{DISCARDED, ERASED};
use virtio_blk_dev::{Commands, Image, Sink, Source};

use crate::common::COMMANDS;
use crate::log::{Event, SECTOR, SECTORS, Sector};

/// An image that records what is done to it, with the events of its guest between.
pub struct RecordedImage {
    contents: Mutex<Vec<Sector>>,
    events: Mutex<Vec<Event>>,
    random: AtomicU64,
    forgets_flushes: bool,
    tears: bool,
    torn: AtomicBool,
}

impl RecordedImage {
    pub fn new(seed: u64) -> Self {
        Self {
            contents: Mutex::new(Self::initial()),
            events: Mutex::default(),
            random: AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            forgets_flushes: false,
            tears: false,
            torn: AtomicBool::new(false),
        }
    }

    pub fn initial() -> Vec<Sector> {
        (0..SECTORS).map(|sector| [sector as u8; SECTOR]).collect()
    }

    /// The same image, whose flushes do nothing.
    pub fn without_flushes(self) -> Self {
        Self { forgets_flushes: true, ..self }
    }

    /// The same image, of whose writes one sector becomes neither old nor new.
    pub fn tearing_sectors(self) -> Self {
        Self { tears: true, ..self }
    }

    pub fn record(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// Now and then: an error, or how many sectors of a write are done.
    fn fate(&self) -> io::Result<usize> {
        let mut random = self.random.load(Ordering::Relaxed);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.store(random, Ordering::Relaxed);
        match random >> 32 & 31 {
            0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            1..4 => Ok(1),
            _ => Ok(usize::MAX),
        }
    }

    fn change(&self, sector: usize, contents: Vec<Sector>) {
        let mut all: MutexGuard<'_, Vec<Sector>> = self.contents.lock().unwrap();
        all[sector..sector + contents.len()].copy_from_slice(&contents);
        self.record(Event::Change { sector, contents });
    }

    fn fill(&self, offset: u64, len: u64, value: u8) -> io::Result<()> {
        self.fate()?;
        self.change(offset as usize / SECTOR, vec![[value; SECTOR]; len as usize / SECTOR]);
        Ok(())
    }
}

impl Image for RecordedImage {
    fn capacity(&self) -> u64 {
        SECTORS * SECTOR as u64
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn commands(&self) -> Commands {
        COMMANDS
    }

    fn read_vectored_at(&self, sink: Sink<'_>, offset: u64) -> io::Result<usize> {
        let all = self.contents.lock().unwrap().concat();
        Ok(sink.copy_from(&all[offset as usize..]))
    }

    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize> {
        let mut data = vec![0; source.iovecs().iter().map(|iovec| iovec.iov_len).sum()];
        source.copy_to(&mut data);
        let mut contents: Vec<Sector> =
            data.chunks(SECTOR).map(|chunk| chunk.try_into().unwrap()).collect();
        contents.truncate(self.fate()?);
        if self.tears && !self.torn.swap(true, Ordering::Relaxed) {
            contents[0][SECTOR / 2..].fill(0x77);
        }
        let len = contents.len() * SECTOR;
        self.change(offset as usize / SECTOR, contents);
        Ok(len)
    }

    fn flush(&self) -> io::Result<()> {
        self.fate().inspect_err(|_| self.record(Event::FailedFlush))?;
        if !self.forgets_flushes {
            self.record(Event::Flush);
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fill(offset, len, DISCARDED)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.fill(offset, len, 0)
    }

    fn secure_erase(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fill(offset, len, ERASED)
    }
}
