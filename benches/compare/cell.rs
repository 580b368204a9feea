//! A cell of the matrix: one load, and how the client waits.

use std::fmt;

use xen_virtio_benches::{Kind, Request};

use crate::random::Random;

/// Loads of this size go to random places, larger ones run through the image.
pub(crate) const RANDOM_BYTES: u32 = 4096;

/// What the requests of a load do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Read,
    Write,
    /// 70 reads and 30 writes of a hundred, in random order.
    Mix,
    /// A write, then a flush once it is complete; the pair counts as one request.
    WriteFlush,
    /// The same on a file system of a disk, whose cache is flushed.
    WriteFlushDisk,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Mix => "mix70/30",
            Self::WriteFlush => "write+flush",
            Self::WriteFlushDisk => "write+flush, disk",
        })
    }
}

/// Where the image lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Medium {
    /// A file of a file system on a disk, all of it in the page cache.
    PageCache,
    /// A file of tmpfs.
    Memory,
}

impl Op {
    /// A flush follows each write.
    pub(crate) fn flushes(self) -> bool {
        matches!(self, Self::WriteFlush | Self::WriteFlushDisk)
    }

    /// Reads are served from the page cache, as io_uring hands every read from tmpfs, which can't
    /// say that it would wait, to a thread. What is written goes to tmpfs, as writing back to a
    /// disk, and waiting for it, would be what is measured: that is one load of its own.
    pub(crate) fn medium(self) -> Medium {
        match self {
            Self::Read | Self::Mix | Self::WriteFlushDisk => Medium::PageCache,
            Self::Write | Self::WriteFlush => Medium::Memory,
        }
    }
}

/// How the client waits for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Looks at the used ring without end; never wants an interrupt.
    Spins,
    /// Wants an interrupt for the next completion, and sleeps until it comes.
    Sleeps,
}

/// One load, and how the client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    pub(crate) op: Op,
    pub(crate) bytes: u32,
    /// Requests in flight over all queues.
    pub(crate) depth: u16,
    pub(crate) queues: u16,
    pub(crate) client: Client,
}

impl Cell {
    /// The requests of this load over an image of `image_len` bytes.
    pub(crate) fn requests(&self, image_len: u64, seed: u64) -> Requests {
        Requests {
            random: Random::new(seed),
            op: self.op,
            len: self.bytes,
            blocks: image_len / u64::from(self.bytes),
            next: 0,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, bytes, depth, queues, client } = self;
        write!(f, "{op} {bytes} QD{depth} queues={queues} client {client:?}")
    }
}

/// The requests of a load, without end.
pub(crate) struct Requests {
    random: Random,
    op: Op,
    len: u32,
    blocks: u64,
    next: u64,
}

impl Requests {
    #[inline]
    pub(crate) fn next(&mut self) -> Request {
        let block = if self.len == RANDOM_BYTES {
            self.random.below(self.blocks)
        } else {
            self.next = if self.next + 1 < self.blocks { self.next + 1 } else { 0 };
            self.next
        };
        let kind = match self.op {
            Op::Read => Kind::Read,
            Op::Write | Op::WriteFlush | Op::WriteFlushDisk => Kind::Write,
            Op::Mix if self.random.below(10) < 7 => Kind::Read,
            Op::Mix => Kind::Write,
        };
        Request { kind, sector: block * u64::from(self.len / 512), len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(op: Op, bytes: u32) -> Cell {
        Cell { op, bytes, depth: 1, queues: 1, client: Client::Spins }
    }

    #[test]
    fn small_requests_go_anywhere_in_the_image() {
        let mut requests = cell(Op::Read, 4096).requests(16 * 4096, 1);
        let mut seen: Vec<u64> = (0..1000).map(|_| requests.next().sector).collect();
        assert_ne!(seen[..16], (8..17 * 8).step_by(8).collect::<Vec<_>>(), "not in order");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..16 * 8).step_by(8).collect::<Vec<_>>());
    }

    #[test]
    fn large_requests_run_through_the_image_and_begin_again() {
        let mut requests = cell(Op::Write, 65536).requests(3 * 65536, 1);
        let sectors: Vec<u64> = (0..6).map(|_| requests.next().sector).collect();
        assert_eq!(sectors, [128, 256, 0, 128, 256, 0]);
    }

    #[test]
    fn a_mix_has_seventy_reads_of_a_hundred() {
        let mut requests = cell(Op::Mix, 4096).requests(1 << 20, 1);
        let reads = (0..10_000).filter(|_| requests.next().kind == Kind::Read).count();
        assert!((6800..7200).contains(&reads), "{reads}");
    }
}
