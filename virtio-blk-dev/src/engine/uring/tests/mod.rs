//! What can't be asked through a worker: single operations, and memory that isn't there.

mod broken;
mod direct;
mod entries;
mod errors;
mod figures;
mod limits;
mod model;
mod refusal;
mod rings;

use std::os::fd::AsRawFd;
use std::sync::Arc;

use tempfile::NamedTempFile;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap, Permissions};

use super::*;
use crate::engine::wait::wait_readable;
use crate::engine::{Command, IoAllocation};

const SECTOR: u64 = 512;

/// Guest memory that operations take their buffers from.
struct Ram(GuestMemoryMmap<()>);

impl Ram {
    fn new(len: usize) -> Self {
        Self(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), len)]).unwrap())
    }

    /// Memory that even the kernel may not touch.
    fn forbidden(len: usize) -> Self {
        let region = MmapRegionBuilder::new(len)
            .with_mmap_prot(libc::PROT_NONE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
            .build()
            .unwrap();
        let region = GuestRegionMmap::new(region, GuestAddress(0)).unwrap();
        Self(GuestMemoryMmap::from_regions(vec![region]).unwrap())
    }

    /// An operation on `parts` of this memory, which outlives it.
    fn io(&self, tag: u64, command: Command, durable: bool, at: u64, parts: &[(u64, usize)]) -> Io {
        let mut spare = IoAllocation::new();
        for &(addr, len) in parts {
            let addr = GuestAddress(addr);
            spare.segments().gather(&self.0, addr, len, Permissions::ReadWrite).unwrap();
        }
        let len = parts.iter().map(|part| part.1 as u64).sum();
        // SAFETY: each test drops or drains its engine before its memory.
        unsafe { spare.begin(tag, command, durable, (at, len)) }
    }

    /// An operation without memory.
    fn command(&self, tag: u64, command: Command, durable: bool, range: (u64, u64)) -> Io {
        // SAFETY: nothing was gathered.
        unsafe { IoAllocation::new().begin(tag, command, durable, range) }
    }

    fn fill(&self, addr: u64, len: usize, byte: u8) {
        self.0.write_slice(&vec![byte; len], GuestAddress(addr)).unwrap();
    }

    fn get(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.0.read_slice(&mut data, GuestAddress(addr)).unwrap();
        data
    }
}

/// A disk of `sectors`, each filled with its number.
fn disk(sectors: u64) -> (NamedTempFile, Arc<RawImage>) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), contents(sectors)).unwrap();
    let image = Arc::new(RawImage::open(file.path(), false).unwrap());
    (file, image)
}

fn contents(sectors: u64) -> Vec<u8> {
    (0..sectors).flat_map(|sector| [sector as u8; 512]).collect()
}

/// An engine; `None`, and the reason printed, where the kernel has no io_uring.
fn engine(image: &Arc<RawImage>, config: &UringConfig) -> Option<UringEngine> {
    match UringEngine::with_config(Arc::clone(image), config) {
        Ok(engine) => Some(engine),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// With the ring alone, and with what is done without it.
fn configs(depth: u16) -> [UringConfig; 2] {
    [true, false].map(|inline| UringConfig { depth, inline, ..UringConfig::default() })
}

/// Has everything submitted done, and returns it in the order of the tags.
fn finish(engine: &mut dyn Engine) -> Vec<Completion> {
    let mut done = Vec::new();
    engine.drain(&mut |completion| done.push(completion)).unwrap();
    done.sort_by_key(|completion| completion.io.tag());
    done
}

/// The same, without a commit, as far as the descriptor tells of it.
fn finish_committed(engine: &mut dyn Engine) -> Vec<Completion> {
    let mut done = Vec::new();
    loop {
        engine.poll_completions(&mut |completion| done.push(completion));
        if engine.in_flight() == 0 {
            break;
        }
        let ready = wait_readable(engine.as_fd().unwrap(), Some(Duration::from_secs(10))).unwrap();
        assert!(ready, "something is in flight, and nobody tells of it");
    }
    done.sort_by_key(|completion| completion.io.tag());
    done
}

fn results(done: &[Completion]) -> Vec<(u64, Option<i32>)> {
    let errno = |completion: &Completion| {
        completion.result.as_ref().err().map(|error| error.raw_os_error().unwrap_or(-1))
    };
    done.iter().map(|completion| (completion.io.tag(), errno(completion))).collect()
}
