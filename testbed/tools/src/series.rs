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
    order: Order,
    /// How many requests the disk has room for.
    room: u64,
}

/// Where each request lies.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    /// Behind the one before: the kernel makes one of those that are made at once.
    Adjacent,
    /// With as much left out between them: the kernel can't.
    Apart,
}

impl Order {
    /// The offset of a request on a disk that has room for so many.
    fn offset(self, request: u64, bytes: u64, room: u64) -> u64 {
        match self {
            Self::Adjacent => request % room * bytes,
            Self::Apart => request % room.div_ceil(2) * 2 * bytes,
        }
    }
}

enum Way {
    OneByOne(MmapMut),
    Deep(Aio, usize),
}

impl Series {
    /// Of `bytes` each, and `depth` of them kept in flight.
    pub(crate) fn new(
        dev: &Path,
        write: bool,
        bytes: u64,
        depth: u64,
        order: Order,
    ) -> Result<Self> {
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
        Ok(Self { way, file, write, bytes, order, room })
    }

    /// Makes so many requests, from the disk's beginning on.
    pub(crate) fn run(&mut self, count: u64) -> Result<()> {
        let (write, bytes, room, order) = (self.write, self.bytes, self.room, self.order);
        let offset = |request: u64| order.offset(request, bytes, room);
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

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn requests_apart_have_no_neighbour_and_stay_on_the_disk() {
        for room in [1, 2, 7, 8] {
            let offsets: Vec<u64> =
                (0..20).map(|request| Order::Apart.offset(request, 512, room)).collect();
            assert!(offsets.iter().all(|offset| *offset < room * 512), "{room}: {offsets:?}");
            let is_neighbour = |pair: &[u64]| pair[1] == pair[0] + 512;
            assert!(!offsets.windows(2).any(is_neighbour), "{room}: {offsets:?}");
        }
        assert_eq!(
            [0, 1, 2, 3].map(|request| Order::Apart.offset(request, 512, 4)),
            [0, 1024, 0, 1024]
        );
        assert_eq!([0, 1, 2].map(|request| Order::Adjacent.offset(request, 512, 2)), [0, 512, 0]);
    }
}
