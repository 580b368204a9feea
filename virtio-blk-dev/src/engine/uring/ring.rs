use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, squeue};

use super::error::UringError;
use super::rings::RingPool;
use super::setup::{build, check_entering, probe};

/// A submission and a completion queue, and the number of operations in them and in the kernel.
pub(super) struct Ring {
    /// Taken when this is dropped.
    ring: ManuallyDrop<IoUring>,
    /// Where it came from, and goes then.
    pool: Option<RingPool>,
    /// Entries whose completion hasn't been taken.
    held: u32,
    /// The position of the next entry.
    next: u32,
    broken: Option<Broken>,
}

/// The state of a ring that the kernel doesn't take entries from any more.
struct Broken {
    /// The position of the first entry that it never took.
    end: u32,
    /// The error, until it was reported.
    source: Option<io::Error>,
}

/// How often submission is tried again, at intervals of a millisecond, when the kernel has no memory for a
/// request and no operation is in flight whose completion could be waited for.
const ATTEMPTS: u32 = 1000;

impl Ring {
    /// A ring for `entries` operations at once.
    pub(super) fn new(entries: u32) -> Result<Self, UringError> {
        let mut ring = build(entries)?;
        probe(&mut ring)?;
        Ok(Self::of(ring, None))
    }

    /// A ring of `pool`, for operations on `file`, which is the first registered one.
    pub(super) fn from_pool(pool: &RingPool, file: BorrowedFd<'_>) -> Result<Self, UringError> {
        let mut ring = Self::of(pool.take()?, Some(pool.clone()));
        ring.register(file.as_raw_fd())
            .map_err(|source| UringError::new("IORING_REGISTER_FILES_UPDATE", source))?;
        check_entering(&mut ring.ring, squeue::Flags::FIXED_FILE)?;
        Ok(ring)
    }

    fn of(ring: IoUring, pool: Option<RingPool>) -> Self {
        Self { ring: ManuallyDrop::new(ring), pool, held: 0, next: 0, broken: None }
    }

    /// Replaces the registered file, by none if it is -1.
    fn register(&self, file: RawFd) -> io::Result<()> {
        match self.ring.submitter().register_files_update(0, &[file])? {
            1 => Ok(()),
            _ => Err(io::ErrorKind::Other.into()),
        }
    }

    /// Whether [`new`](Self::new) can be expected to work.
    pub(super) fn check() -> Result<(), UringError> {
        probe(&mut build(1)?)
    }

    /// The number of operations in the kernel and in the submission queue.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// The number of operations in the kernel.
    pub(super) fn in_kernel(&mut self) -> u32 {
        match self.broken {
            Some(_) => self.held,
            None => self.held.saturating_sub(self.queued()),
        }
    }

    /// Whether there is room for another operation. There are never more than the submission queue has
    /// entries, so that the completion queue, which is twice as long, can't overflow.
    pub(super) fn has_room(&self) -> bool {
        self.held < self.ring.params().sq_entries()
    }

    /// Whether the kernel doesn't take entries any more. Operations that it took before usually still
    /// complete, as that needs no system call.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// The error by which the ring broke: returned once.
    pub(super) fn take_fault(&mut self) -> Option<io::Error> {
        self.broken.as_mut()?.source.take()
    }

    /// Whether the ring broke before the kernel took the entry at this position.
    pub(super) fn was_left(&self, position: u32) -> bool {
        // Positions wrap around, and differ by less than the ring's length.
        let left = |end: u32| position.wrapping_sub(end) < self.ring.params().sq_entries();
        self.broken.as_ref().is_some_and(|broken| left(broken.end))
    }

    /// Queues an entry, and returns its position. There must [be room](Self::has_room) for it.
    ///
    /// # Safety
    /// The memory that `entry` names stays valid until [`next`](Self::next) has returned its
    /// `user_data`, or the entry [was left](Self::was_left), even if neither ever happens.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> u32 {
        let position = self.next;
        // SAFETY: the caller's promise.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            self.held = self.held.saturating_add(1);
            self.next = self.next.wrapping_add(1);
        }
        position
    }

    /// Submits the queued entries to the kernel.
    pub(super) fn enter(&mut self) {
        let mut attempts = 0u32;
        while !self.is_broken() {
            let queued = self.queued();
            // SAFETY: what the entries name is valid by `push`, and there is no argument.
            let result =
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, 0, None) };
            let error = match result {
                Ok(_) if self.queued() == 0 => return,
                // Without IORING_SETUP_SUBMIT_ALL an entry that fails ends the call.
                Ok(submitted) if submitted > 0 => continue,
                Ok(_) => io::ErrorKind::WouldBlock.into(),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // No memory for a request. It is tried again after a completion of those in flight.
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) | None if self.in_kernel() > 0 => {
                    return;
                }
                // Nothing is in flight: wait here, as a blocking system call would.
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) | None if attempts < ATTEMPTS => {
                    attempts = attempts.saturating_add(1);
                    thread::sleep(Duration::from_millis(1));
                }
                _ => self.give_up(error),
            }
        }
    }

    /// Marks the ring as broken. The queued entries will not be submitted.
    fn give_up(&mut self, source: io::Error) {
        let left = self.queued();
        self.held = self.held.saturating_sub(left);
        self.broken = Some(Broken { end: self.next.wrapping_sub(left), source: Some(source) });
    }

    /// Runs pending task work (`IORING_SQ_TASKRUN`), which completes operations. Makes no system call if
    /// there is none.
    pub(super) fn run_task_work(&mut self) {
        if self.ring.submission().taskrun() {
            self.enter();
        }
    }

    /// The next completion: `user_data` and result.
    pub(super) fn next(&mut self) -> Option<(u64, i32)> {
        let entry = self.ring.completion().next()?;
        self.held = self.held.saturating_sub(1);
        Some((entry.user_data(), entry.result()))
    }

    /// The number of entries that the kernel hasn't taken.
    pub(super) fn queued(&mut self) -> u32 {
        u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX)
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns its descriptor, and the borrow ends before it does.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Ring {
    /// Whether another engine can use it: nothing is left in it, and its file is let go of.
    fn is_reusable(&mut self) -> bool {
        !self.is_broken()
            && self.held == 0
            && self.ring.submission().is_empty()
            && self.ring.completion().is_empty()
            && self.register(-1).is_ok()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let pool = self.pool.take().filter(|_| self.is_reusable());
        // SAFETY: the field isn't used again, as `drop` is called once and is the last to have it.
        let ring = unsafe { ManuallyDrop::take(&mut self.ring) };
        if let Some(pool) = pool {
            pool.put(ring);
        }
    }
}
