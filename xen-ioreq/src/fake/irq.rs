//! The guest's interrupt controller.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::errno::errno;

/// INTIDs below are a vCPU's own (SGI, PPI), those from 1020 on are reserved.
const SPIS: std::ops::Range<u32> = 32..1020;

/// How many shared peripheral interrupts there can be.
pub(super) const MAX_SPIS: u32 = SPIS.end - SPIS.start;

#[derive(Debug, Default)]
struct Line {
    level: bool,
    raised: u64,
}

#[derive(Debug)]
struct BoundFd {
    irq: u32,
    fd: RawFd,
    /// The same eventfd, as the kernel holds it.
    eventfd: File,
}

#[derive(Debug)]
pub(super) struct Interrupts {
    /// How many shared peripheral interrupts the guest was created with.
    nr_spis: u32,
    lines: BTreeMap<u32, Line>,
    bound: Vec<BoundFd>,
}

impl Interrupts {
    pub(super) fn new(nr_spis: u32) -> Self {
        Self { nr_spis, lines: BTreeMap::new(), bound: Vec::new() }
    }

    pub(super) fn set_level(&mut self, irq: u32, level: bool) -> io::Result<()> {
        if !SPIS.contains(&irq) || irq - SPIS.start >= self.nr_spis {
            return Err(errno(libc::EINVAL));
        }
        let line = self.lines.entry(irq).or_default();
        line.level = level;
        line.raised += u64::from(level);
        Ok(())
    }

    pub(super) fn bind(&mut self, irq: u32, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.bound.iter().any(|bound| bound.fd == fd.as_raw_fd()) {
            return Err(errno(libc::EBUSY));
        }
        let eventfd = File::from(fd.try_clone_to_owned()?);
        self.bound.push(BoundFd { irq, fd: fd.as_raw_fd(), eventfd });
        Ok(())
    }

    /// As the kernel, content when there is nothing to unbind.
    pub(super) fn unbind(&mut self, fd: BorrowedFd<'_>) {
        self.run_bound();
        self.bound.retain(|bound| bound.fd != fd.as_raw_fd());
    }

    /// How many eventfds are bound.
    pub(super) fn bound(&self) -> usize {
        self.bound.len()
    }

    /// What the kernel does at a wake-up of a bound eventfd: one raise, however often it was written.
    fn run_bound(&mut self) {
        let woken = |bound: &&BoundFd| (&bound.eventfd).read(&mut [0; 8]).is_ok();
        let raised: Vec<_> = self.bound.iter().filter(woken).map(|bound| bound.irq).collect();
        for irq in raised {
            // An interrupt that is no SPI is refused at each wake-up, unheard.
            let _ = self.set_level(irq, true);
        }
    }

    pub(super) fn raised(&mut self, irq: u32) -> u64 {
        self.run_bound();
        self.lines.get(&irq).map_or(0, |line| line.raised)
    }

    pub(super) fn level(&mut self, irq: u32) -> bool {
        self.run_bound();
        self.lines.get(&irq).is_some_and(|line| line.level)
    }
}
