//! Requests of one size on one disk, one after the other or many in flight.

use crate::aio::Aio;
use crate::disk;
use anyhow::{Result, ensure};
use memmap2::MmapMut;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A disk, and the buffers for its requests.
pub(crate) struct Series {
    /// Before the file, which its requests are made of.
    way: Way,
    file: File,
    write: bool,
    bytes: u64,
    /// How many requests the disk has room for.
    room: u64,
}

enum Way {
    OneByOne(MmapMut),
    Deep(Aio, usize),
}

impl Series {
    /// Of `bytes` each, and `depth` of them kept in flight.
    pub(crate) fn new(dev: &Path, write: bool, bytes: u64, depth: u64) -> Result<Self> {
        let file = disk::open(dev, write)?;
        let room = disk::size(&file)? / bytes;
        ensure!(room > 0, "{} is smaller than one request", dev.display());
        let (depth, len) = (depth as usize, bytes as usize);
        let way = if depth == 1 {
            let mut buffer = disk::buffer(len)?;
            buffer.fill(0x5a);
            Way::OneByOne(buffer)
        } else {
            let mut aio = Aio::new(&file, depth, len)?;
            (0..depth).for_each(|slot| aio.buffer(slot).fill(0x5a));
            Way::Deep(aio, depth)
        };
        Ok(Self { way, file, write, bytes, room })
    }

    /// Makes so many requests, from the disk's beginning on.
    pub(crate) fn run(&mut self, count: u64) -> Result<()> {
        let (write, bytes, room) = (self.write, self.bytes, self.room);
        let offset = |request: u64| request % room * bytes;
        match &mut self.way {
            Way::OneByOne(buffer) => {
                for request in 0..count {
                    if write {
                        self.file.write_all_at(buffer, offset(request))?;
                    } else {
                        self.file.read_exact_at(buffer, offset(request))?;
                    }
                }
            }
            Way::Deep(aio, depth) => {
                let mut idle: Vec<usize> = (0..*depth).collect();
                let (mut sent, mut done) = (0, 0);
                while done < count {
                    while sent < count
                        && let Some(slot) = idle.pop()
                    {
                        aio.queue(slot, write, offset(sent), bytes as usize);
                        sent += 1;
                    }
                    aio.submit()?;
                    aio.wait(|slot| {
                        idle.push(slot);
                        done += 1;
                    })?;
                }
            }
        }
        Ok(())
    }
}
