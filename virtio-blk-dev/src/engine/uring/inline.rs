use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::engine::{Io, Operation};

/// Up to so many operations begun together are tried without the ring, one system call each. More
/// are cheaper through the ring, where they share one.
///
/// Nanoseconds of CPU for a hot read of 4 KiB from ext4, one by one and through the ring: 1419 and
/// 1943 alone, 1395 and 1362 in a batch of 4, 1783 and 1394 in one of 32.
const BATCH_MAX: usize = 4;

/// A write that took longer had to wait: for room in the page cache, or to read what it changes a
/// part of.
const STALL: Duration = Duration::from_millis(1);

/// Operations that are done where they are begun, as the thread need not wait for a device.
///
/// What lies in the page cache is copied by the thread that asks, through the ring or not. The ring
/// costs more than it saves for a few operations, and much more where the file system can't say
/// beforehand whether it will block: the kernel then has threads of its own do all of them.
#[derive(Debug)]
pub(super) struct Inline {
    reads: Lane,
    writes: Lane,
}

/// How one direction of [`Inline`] is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Through the ring.
    Never,
    /// `RWF_NOWAIT`: the file system says when it would block.
    NoWait,
    /// It doesn't, but as it hardly ever does, that is found by the time it takes.
    Timed,
    /// The file is memory.
    Always,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    mode: Mode,
    /// What takes the place of `NoWait` where the file system hasn't got it.
    otherwise: Mode,
    /// Operations that go to the ring before the next attempt.
    skip: u32,
    /// How many that are after the next miss.
    penalty: u32,
}

/// Misses in a row make attempts rarer, down to one in so many operations.
const PENALTY_MAX: u32 = 64;

impl Lane {
    fn new(mode: Mode, otherwise: Mode) -> Self {
        Self { mode, otherwise, skip: 0, penalty: 1 }
    }

    /// The mode of the next operation, of a batch of so many.
    fn next(&mut self, batch: usize) -> Mode {
        if self.mode == Mode::NoWait && batch > BATCH_MAX {
            return Mode::Never;
        }
        let due = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        if due { self.mode } else { Mode::Never }
    }

    fn hit(&mut self) {
        self.penalty = 1;
    }

    fn miss(&mut self) {
        self.skip = self.penalty;
        self.penalty = self.penalty.saturating_mul(2).min(PENALTY_MAX);
    }
}

impl Inline {
    pub(super) fn new(file: BorrowedFd<'_>, enabled: bool) -> Self {
        let (reads, writes) = if !enabled {
            (Lane::new(Mode::Never, Mode::Never), Lane::new(Mode::Never, Mode::Never))
        } else if is_memory(file) {
            (Lane::new(Mode::Always, Mode::Always), Lane::new(Mode::Always, Mode::Always))
        } else {
            (Lane::new(Mode::NoWait, Mode::Never), Lane::new(Mode::NoWait, Mode::Timed))
        };
        Self { reads, writes }
    }

    /// Does `io`, one of a batch of so many, if that needs no waiting. `None`: it goes to the ring,
    /// all of it or what is left.
    pub(super) fn attempt(
        &mut self,
        file: BorrowedFd<'_>,
        io: &mut Io,
        batch: usize,
    ) -> Option<io::Result<()>> {
        let lane = match io.operation() {
            Operation::Read(_) => &mut self.reads,
            // What is to be durable has to wait for the device.
            Operation::Write(_) if !io.is_durable() => &mut self.writes,
            _ => return None,
        };
        let mode = lane.next(batch);
        let started = match mode {
            Mode::Never => return None,
            Mode::Timed => Some(Instant::now()),
            Mode::NoWait | Mode::Always => None,
        };
        match transfer(file, io, if mode == Mode::NoWait { libc::RWF_NOWAIT } else { 0 }) {
            // The end of the file, or of what is in the cache: the ring finds out.
            Ok(0) => lane.miss(),
            Ok(n) => {
                if started.is_some_and(|started| started.elapsed() > STALL) {
                    lane.miss();
                } else {
                    lane.hit();
                }
                io.advance(n);
                if io.remaining() == 0 {
                    return Some(Ok(()));
                }
            }
            Err(libc::EOPNOTSUPP | libc::ENOSYS) if mode == Mode::NoWait => {
                lane.mode = lane.otherwise;
            }
            Err(_) => lane.miss(),
        }
        None
    }
}

/// Transfers as much of `io` as one system call does; the errno if that is nothing.
fn transfer(file: BorrowedFd<'_>, io: &Io, flags: libc::c_int) -> Result<u64, i32> {
    let offset = i64::try_from(io.offset()).map_err(|_| libc::EINVAL)?;
    let n = match io.operation() {
        Operation::Read(sink) => {
            let (iovecs, count) = clamp(sink.iovecs());
            // SAFETY: the descriptor is open, and the memory of `iovecs` is writable while `sink`
            // lives. The guest sharing it is no concern of the kernel, which copies into it.
            unsafe { libc::preadv2(file.as_raw_fd(), iovecs, count, offset, flags) }
        }
        Operation::Write(source) => {
            let (iovecs, count) = clamp(source.iovecs());
            // SAFETY: as above, the memory of `iovecs` being readable while `source` lives.
            unsafe { libc::pwritev2(file.as_raw_fd(), iovecs, count, offset, flags) }
        }
        _ => 0,
    };
    u64::try_from(n).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// What a system call takes at once.
fn clamp(iovecs: &[libc::iovec]) -> (*const libc::iovec, libc::c_int) {
    (iovecs.as_ptr(), iovecs.len().min(libc::UIO_MAXIOV as usize) as libc::c_int)
}

/// The file lies in a file system without a device behind it.
pub(super) fn is_memory(file: BorrowedFd<'_>) -> bool {
    let mut stat = MaybeUninit::<libc::statfs64>::uninit();
    // SAFETY: the descriptor is open, and there is room for the result.
    if unsafe { libc::fstatfs64(file.as_raw_fd(), stat.as_mut_ptr()) } == -1 {
        return false;
    }
    // SAFETY: the call succeeded, and so has filled it in.
    let kind = unsafe { stat.assume_init() }.f_type;
    // Its type differs between targets, as that of the constant does.
    let kind = kind as u32;
    kind == libc::TMPFS_MAGIC as u32 || kind == 0x8584_58f6 // RAMFS_MAGIC (linux/magic.h)
}
