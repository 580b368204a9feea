//! The file of a qcow2 image, of arbitrary contents, and requests to the disk that it is.
//!
//! An input is a byte for the number of [`Op`]s, mod 32, the operations of three bytes each, and the
//! contents of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use virtio_blk_dev::{ImageFormat, ImagoImage};

use crate::client::{Client, MAX_SECTORS};
use crate::input::Input;

const SECTOR: usize = 512;
/// A file that grows beyond this, out of an input of 4 KiB, grows without bound.
const MAX_FILE: u64 = 64 << 20;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// What is done to the disk, at a 256th of its sectors and for 1 to 12 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads, and compares with what was written or read before.
    Read(u8, u8),
    /// Writes what no other write does.
    Write(u8, u8),
    /// Discards.
    Discard(u8, u8),
    /// Writes zeroes that keep their storage.
    Zero(u8, u8),
    /// Writes zeroes that may give it back.
    Unmap(u8, u8),
    /// Flushes.
    Flush,
    /// Closes the image and opens it again.
    Reopen,
}

impl Op {
    fn take(input: &mut Input<'_>) -> Self {
        let (kind, at, sectors) = (input.u8(), input.u8(), input.u8() % MAX_SECTORS + 1);
        match kind % 7 {
            0 => Self::Read(at, sectors),
            1 => Self::Write(at, sectors),
            2 => Self::Discard(at, sectors),
            3 => Self::Zero(at, sectors),
            4 => Self::Unmap(at, sectors),
            5 => Self::Flush,
            _ => Self::Reopen,
        }
    }

    fn encode(self) -> [u8; 3] {
        match self {
            Self::Read(at, sectors) => [0, at, sectors - 1],
            Self::Write(at, sectors) => [1, at, sectors - 1],
            Self::Discard(at, sectors) => [2, at, sectors - 1],
            Self::Zero(at, sectors) => [3, at, sectors - 1],
            Self::Unmap(at, sectors) => [4, at, sectors - 1],
            Self::Flush => [5, 0, 0],
            Self::Reopen => [6, 0, 0],
        }
    }
}

/// The bytes that mean these operations on a file of these contents.
pub fn encode(ops: &[Op], file: &[u8]) -> Vec<u8> {
    let mut bytes = vec![ops.len() as u8];
    ops.iter().for_each(|op| bytes.extend(op.encode()));
    bytes.extend(file);
    bytes
}

/// What became of an input, for the tests of the seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The image was opened.
    pub opened: bool,
    /// Requests that succeeded.
    pub ok: u32,
    /// Requests that failed.
    pub errors: u32,
    /// Sectors that were compared with what they held before.
    pub compared: u32,
}

/// Carries out one input.
pub fn run(data: &[u8]) -> Report {
    let mut input = Input::new(data);
    let count = input.u8() % 32;
    let ops: Vec<_> = (0..count).map(|_| Op::take(&mut input)).collect();
    let mut file = memory_file();
    file.write_all(input.rest()).expect("a file in memory");
    let Some(client) = open(&file) else { return Report::default() };
    let report = Report { opened: true, ..Report::default() };
    let mut guest = Guest { client: Some(client), known: BTreeMap::new(), writes: 0, report };
    for op in ops {
        if !guest.act(op, &file) {
            break;
        }
        let size = file.metadata().expect("a file in memory").len();
        assert!(size <= MAX_FILE, "the file has grown to {size} bytes");
    }
    let report = guest.report;
    if guest.client.is_some() && guest.reopen(&file) {
        guest.compare_all();
    }
    report
}

fn memory_file() -> File {
    let fd = rustix::fs::memfd_create("qcow2", rustix::fs::MemfdFlags::CLOEXEC);
    fd.expect("a file in memory").into()
}

/// Opens the image as an open file description of its own.
fn open(file: &File) -> Option<Client> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    match ImagoImage::open(&path, ImageFormat::Qcow2, false) {
        Ok(image) => Client::new(Arc::new(image)),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("/proc/self/fd"), "{text}");
            None
        }
    }
}

/// A guest that knows what it has written or read.
struct Guest {
    /// `None` while the image is closed.
    client: Option<Client>,
    known: BTreeMap<u64, [u8; SECTOR]>,
    writes: u8,
    report: Report,
}

impl Guest {
    /// False if there is no disk any more.
    fn act(&mut self, op: Op, file: &File) -> bool {
        match op {
            Op::Read(at, sectors) => self.read(at, sectors),
            Op::Write(at, sectors) => {
                self.writes = self.writes.wrapping_add(1);
                let content = [self.writes | 0x80; SECTOR];
                let data = content.repeat(sectors.into());
                self.change(OUT, (at, sectors), &data, Some(content));
            }
            Op::Discard(at, sectors) => self.change_range(DISCARD, (at, sectors), 0, None),
            Op::Zero(at, sectors) => {
                self.change_range(WRITE_ZEROES, (at, sectors), 0, Some([0; SECTOR]));
            }
            Op::Unmap(at, sectors) => {
                self.change_range(WRITE_ZEROES, (at, sectors), 1, Some([0; SECTOR]));
            }
            Op::Flush => {
                self.request(FLUSH, 0, &[], 0);
            }
            Op::Reopen => return self.reopen(file),
        }
        true
    }

    fn reopen(&mut self, file: &File) -> bool {
        // Only one may have it open for writing.
        let has_failed = self.client.take().is_none_or(|client| client.host_errors() > 0);
        if has_failed {
            // What wasn't flushed may be lost.
            self.known.clear();
        }
        self.client = open(file);
        assert!(has_failed || self.client.is_some(), "an image that never failed can't be opened");
        self.client.is_some()
    }

    /// The first of some sectors, if all of them are the disk's.
    fn first(&self, at: u8, sectors: u8) -> Option<u64> {
        let all = self.client.as_ref()?.sectors();
        let first = (all >> 8).saturating_mul(at.into()) + u64::from(at) % (all % 256 + 1);
        (first.checked_add(sectors.into())? <= all).then_some(first)
    }

    fn read(&mut self, at: u8, sectors: u8) {
        let Some(first) = self.first(at, sectors) else { return };
        self.compare(first, sectors);
    }

    /// Nobody else changes the disk: a sector holds what it held the last time.
    fn compare(&mut self, first: u64, sectors: u8) {
        let len = usize::from(sectors) * SECTOR;
        let Some(data) = self.request(IN, first, &[], len) else { return };
        for (sector, found) in (first..).zip(data.as_chunks::<SECTOR>().0) {
            if let Some(known) = self.known.insert(sector, *found) {
                assert!(*found == known, "sector {sector} holds {:x?}", &found[..8]);
                self.report.compared += 1;
            }
        }
    }

    fn compare_all(&mut self) {
        let sectors: Vec<_> = self.known.keys().copied().collect();
        for sector in sectors {
            self.compare(sector, 1);
        }
    }

    /// Changes sectors by a list of one range (virtio 1.2 §5.2.6).
    fn change_range(
        &mut self,
        kind: u32,
        (at, sectors): (u8, u8),
        flags: u32,
        content: Option<[u8; SECTOR]>,
    ) {
        let Some(first) = self.first(at, sectors) else { return };
        let mut range = first.to_le_bytes().to_vec();
        range.extend(u32::from(sectors).to_le_bytes());
        range.extend(flags.to_le_bytes());
        self.change(kind, (at, sectors), &range, content);
    }

    /// Changes sectors; `content` is what is in each of them then, if that is known.
    fn change(
        &mut self,
        kind: u32,
        (at, sectors): (u8, u8),
        data: &[u8],
        content: Option<[u8; SECTOR]>,
    ) {
        let Some(first) = self.first(at, sectors) else { return };
        let is_done = self.request(kind, first, data, 0).is_some();
        for sector in (first..).take(sectors.into()) {
            match content.filter(|_| is_done) {
                Some(content) => self.known.insert(sector, content),
                None => self.known.remove(&sector),
            };
        }
    }

    /// Makes one request; what was read, if it succeeded.
    fn request(&mut self, kind: u32, sector: u64, data: &[u8], room: usize) -> Option<Vec<u8>> {
        let answer = self.client.as_mut()?.request(kind, sector, data, room);
        let count = if answer.is_some() { &mut self.report.ok } else { &mut self.report.errors };
        *count += 1;
        answer
    }
}
