use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::engine::{Io, Operation};

/// Batches of up to so many operations are tried without the ring, with one system call each. Larger ones
/// are cheaper through the ring, where they share a system call.
///
/// Nanoseconds of CPU for a hot read of 4 KiB from ext4 (medians of 15, x86_64, Linux 6.18), by
/// [`SyncEngine`](crate::SyncEngine) and through the ring: 1376 and 1677 alone, 1532 and 1413 for
/// each of 2, 1691 and 1568 of 4, 1658 and 1428 of 8, 1671 and 1312 of 32.
const BATCH_MAX: usize = 1;

/// A write that took longer had to wait: for room in the page cache, or for the rest of a block that it
/// changes a part of.
const STALL: Duration = Duration::from_millis(1);

/// Decides which operations are done by a system call of the calling thread, as they needn't wait for a device.
///
/// Data in the page cache is copied by the calling thread, through the ring or not. For a single operation
/// the ring costs more than it saves, and much more where the file system can't tell in advance whether it
/// will block: the kernel then uses a thread of its own for each.
#[derive(Debug)]
pub(super) struct Inline {
    reads: Lane,
    writes: Lane,
}

/// How the operations of one direction are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Through the ring.
    Never,
    /// Without the ring, with `RWF_NOWAIT`: the file system fails the call if it would block.
    NoWait,
    /// Without the ring, for a file system without `RWF_NOWAIT` that hardly ever blocks. Whether it did is
    /// found by the time that a call takes.
    Timed,
    /// Without the ring: the file is in memory.
    Always,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    mode: Mode,
    /// Used instead of `NoWait` if the file system doesn't support that.
    fallback: Mode,
    /// The file system has been found to support `NoWait`.
    proven: bool,
    /// Operations that go to the ring before the next attempt.
    skip: u32,
    /// The value of `skip` after the next miss.
    penalty: u32,
}

/// Consecutive misses make attempts rarer, down to one in so many operations.
const PENALTY_MAX: u32 = 64;

impl Lane {
    fn new(mode: Mode, fallback: Mode) -> Self {
        Self { mode, fallback, proven: false, skip: 0, penalty: 1 }
    }

    /// The mode of the next operation, in a batch of `batch` operations.
    fn next(&mut self, batch: usize) -> Mode {
        if self.mode == Mode::NoWait && self.proven && batch > BATCH_MAX {
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
    /// For this file, which is not open for direct I/O: with that, a call waits for the device even if told not to.
    pub(super) fn new(file: BorrowedFd<'_>) -> Self {
        let (reads, writes) = if is_memory(file) {
            (Lane::new(Mode::Always, Mode::Always), Lane::new(Mode::Always, Mode::Always))
        } else {
            (Lane::new(Mode::NoWait, Mode::Never), Lane::new(Mode::NoWait, Mode::Timed))
        };
        Self { reads, writes }
    }

    /// Nothing is done so.
    pub(super) fn never() -> Self {
        let never = Lane::new(Mode::Never, Mode::Never);
        Self { reads: never, writes: never }
    }

    /// As [`attempt`](Self::attempt) for a single operation, on a thread that must not block: only where the file
    /// system is known to fail a call that would, or has no device.
    pub(super) fn attempt_without_blocking(
        &mut self,
        file: BorrowedFd<'_>,
        io: &mut Io,
    ) -> Option<io::Result<()>> {
        let lane = match io.operation() {
            Operation::Read(_) => &self.reads,
            _ => &self.writes,
        };
        match lane.mode {
            Mode::NoWait | Mode::Always => self.attempt(file, io, 1),
            Mode::Never | Mode::Timed => None,
        }
    }

    /// Carries out `io`, one of a batch of `batch`, if that doesn't block. With `None` it has to go to the
    /// ring, as far as it is not done.
    pub(super) fn attempt(
        &mut self,
        file: BorrowedFd<'_>,
        io: &mut Io,
        batch: usize,
    ) -> Option<io::Result<()>> {
        let lane = match io.operation() {
            Operation::Read(_) => &mut self.reads,
            // A durable write has to wait for the device.
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
            // At the end of the file, or of the data in the cache: left to the ring.
            Ok(0) => lane.miss(),
            Ok(n) => {
                if started.is_some_and(|started| started.elapsed() > STALL) {
                    lane.miss();
                } else {
                    lane.hit();
                }
                io.advance(n);
                if io.remaining() == 0 {
                    lane.proven = true;
                    return Some(Ok(()));
                }
            }
            Err(libc::EOPNOTSUPP | libc::ENOSYS) if mode == Mode::NoWait => {
                lane.mode = lane.fallback;
                return None;
            }
            Err(_) => lane.miss(),
        }
        lane.proven = true;
        None
    }
}

/// Transfers as much of `io` as one system call does. The error is its errno.
fn transfer(file: BorrowedFd<'_>, io: &Io, flags: libc::c_int) -> Result<u64, i32> {
    let offset = i64::try_from(io.offset()).map_err(|_| libc::EINVAL)?;
    let n = match io.operation() {
        Operation::Read(sink) => {
            let (iovecs, count) = clamp(sink.iovecs());
            match (sink.iovecs(), flags) {
                // SAFETY: the descriptor is open, and the memory of `iovecs` is writable while `sink`
                // lives. The guest sharing it is no concern of the kernel, which copies into it.
                ([piece], 0) => unsafe {
                    libc::pread64(file.as_raw_fd(), piece.iov_base, piece.iov_len, offset)
                },
                // SAFETY: as above.
                _ => unsafe { libc::preadv2(file.as_raw_fd(), iovecs, count, offset, flags) },
            }
        }
        Operation::Write(source) => {
            let (iovecs, count) = clamp(source.iovecs());
            match (source.iovecs(), flags) {
                // SAFETY: as above, the memory of `iovecs` being readable while `source` lives.
                ([piece], 0) => unsafe {
                    libc::pwrite64(file.as_raw_fd(), piece.iov_base, piece.iov_len, offset)
                },
                // SAFETY: as above.
                _ => unsafe { libc::pwritev2(file.as_raw_fd(), iovecs, count, offset, flags) },
            }
        }
        _ => 0,
    };
    u64::try_from(n).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Limits the list to what a system call accepts.
fn clamp(iovecs: &[libc::iovec]) -> (*const libc::iovec, libc::c_int) {
    (iovecs.as_ptr(), iovecs.len().min(libc::UIO_MAXIOV as usize) as libc::c_int)
}

/// Whether the file is in a file system without a device.
pub(super) fn is_memory(file: BorrowedFd<'_>) -> bool {
    is_regular(file) && matches!(file_system(file), Some(TMPFS_MAGIC | RAMFS_MAGIC))
}

/// linux/magic.h
const TMPFS_MAGIC: u32 = 0x0102_1994;
const RAMFS_MAGIC: u32 = 0x8584_58f6;

/// The type of the file system that `file` is in. For a device that is the one with its special file.
fn file_system(file: BorrowedFd<'_>) -> Option<u32> {
    let mut stat = MaybeUninit::<libc::statfs64>::uninit();
    // SAFETY: the descriptor is open, and there is room for the result.
    if unsafe { libc::fstatfs64(file.as_raw_fd(), stat.as_mut_ptr()) } == -1 {
        return None;
    }
    // SAFETY: the call succeeded, and so has filled it in.
    let stat = unsafe { stat.assume_init() };
    // 32 bits, in a field whose width and sign differ between targets.
    Some(stat.f_type as u32)
}

fn is_regular(file: BorrowedFd<'_>) -> bool {
    let mut stat = MaybeUninit::<libc::stat64>::uninit();
    // SAFETY: the descriptor is open, and there is room for the result.
    if unsafe { libc::fstat64(file.as_raw_fd(), stat.as_mut_ptr()) } == -1 {
        return false;
    }
    // SAFETY: the call succeeded, and so has filled it in.
    let stat = unsafe { stat.assume_init() };
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no fstat64")]
    fn a_device_is_not_memory_because_its_name_is() {
        let device = File::open("/dev/null").unwrap();
        assert!(!is_memory(device.as_fd()));
        if let Ok(file) = tempfile::tempfile_in("/dev/shm") {
            let memory = file_system(file.as_fd()) == Some(TMPFS_MAGIC);
            assert_eq!(is_memory(file.as_fd()), memory);
        }
    }

    #[test]
    fn misses_make_attempts_rarer_and_a_hit_undoes_that() {
        let mut lane = Lane::new(Mode::NoWait, Mode::Never);
        let mut gaps = Vec::new();
        for _ in 0..9 {
            let mut gap = 0;
            while lane.next(1) == Mode::Never {
                gap += 1;
            }
            gaps.push(gap);
            lane.miss();
        }
        assert_eq!(gaps, [0, 1, 2, 4, 8, 16, 32, 64, 64]);
        while lane.next(1) == Mode::Never {}
        lane.hit();
        assert_eq!(lane.next(1), Mode::NoWait);
    }

    #[test]
    fn a_large_batch_goes_to_the_ring_once_it_is_known_that_the_ring_pays() {
        let mut lane = Lane::new(Mode::NoWait, Mode::Timed);
        assert_eq!(lane.next(BATCH_MAX + 1), Mode::NoWait);
        lane.proven = true;
        assert_eq!(lane.next(BATCH_MAX), Mode::NoWait);
        assert_eq!(lane.next(BATCH_MAX + 1), Mode::Never);
        lane.mode = lane.fallback;
        assert_eq!(lane.next(BATCH_MAX + 1), Mode::Timed);
    }
}
