use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::thread;
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, Probe, opcode, squeue};

use super::error::UringError;

/// What every kernel since 5.6 has: without one of them there is no engine.
const OPERATIONS: [(u8, &str); 4] = [
    (opcode::Readv::CODE, "IORING_OP_READV"),
    (opcode::Read::CODE, "IORING_OP_READ"),
    (opcode::Fsync::CODE, "IORING_OP_FSYNC"),
    (opcode::Fallocate::CODE, "IORING_OP_FALLOCATE"),
];

/// A submission and a completion queue, and the count of what the kernel has in hand.
pub(super) struct Ring {
    ring: IoUring,
    /// Entries pushed whose completion hasn't been taken.
    held: u32,
    broken: bool,
}

impl Ring {
    /// A ring for `entries` operations at once.
    pub(super) fn new(entries: u32) -> Result<Self, UringError> {
        let ring = build(entries)?;
        probe(&ring)?;
        Ok(Self { ring, held: 0, broken: false })
    }

    /// Whether [`new`](Self::new) can be expected to work.
    pub(super) fn check() -> Result<(), UringError> {
        probe(&build(1)?)
    }

    /// Operations in the kernel's hands.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// There is a place for another operation. Not more than the submission queue has entries are
    /// ever in hand, so that the completion queue, twice as long, can't overflow.
    pub(super) fn has_room(&self) -> bool {
        self.held < self.ring.params().sq_entries()
    }

    /// The kernel refuses to work on: what it has in hand may never come back.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Makes memory the registered buffer 0; `false` if the kernel has no room for it.
    ///
    /// # Safety
    /// The memory is valid as long as the ring has operations on it in hand.
    pub(super) unsafe fn register_buffer(&mut self, memory: NonNull<u8>, len: usize) -> bool {
        let buffer = libc::iovec { iov_base: memory.as_ptr().cast(), iov_len: len };
        // SAFETY: the kernel pins the pages, and touches them for operations alone, for which the
        // caller promises.
        unsafe { self.ring.submitter().register_buffers(&[buffer]) }.is_ok()
    }

    /// Queues an entry. There [is room](Self::has_room) for it.
    ///
    /// # Safety
    /// The memory that `entry` names stays valid until [`next`](Self::next) has returned its
    /// `user_data`, even if that never happens.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            self.held = self.held.saturating_add(1);
        }
    }

    /// Hands the queued entries to the kernel, and waits until at least `min_complete` have
    /// completed.
    pub(super) fn enter(&mut self, min_complete: u32) {
        loop {
            let queued = self.queued();
            let flags = if min_complete > 0 { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
            // SAFETY: what the entries name is valid by `push`, and there is no argument.
            let result = unsafe {
                self.ring.submitter().enter::<libc::sigset_t>(
                    queued,
                    min_complete,
                    flags.bits(),
                    None,
                )
            };
            let error = match result {
                Ok(_) if self.queued() == 0 => return,
                // Before IORING_SETUP_SUBMIT_ALL an entry that fails ends the call.
                Ok(submitted) if submitted > 0 => continue,
                Ok(_) => io::ErrorKind::WouldBlock.into(),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // No memory for a request. What is in flight will wake us; if nothing is, nothing
                // but waiting is left, as a blocking system call would.
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) | None => {
                    if self.held > self.queued() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                Some(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    /// Has the kernel finish what it put off until this thread's next system call; none if there is
    /// nothing.
    pub(super) fn run_task_work(&mut self) {
        if self.ring.submission().taskrun() && !self.broken {
            self.enter(0);
        }
    }

    /// The next completion: `user_data` and result.
    pub(super) fn next(&mut self) -> Option<(u64, i32)> {
        let entry = self.ring.completion().next()?;
        self.held = self.held.saturating_sub(1);
        Some((entry.user_data(), entry.result()))
    }

    /// Entries that the kernel hasn't taken.
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

/// The kernel has the operations that there is no engine without.
fn probe(ring: &IoUring) -> Result<(), UringError> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|source| UringError::new("IORING_REGISTER_PROBE", source))?;
    match OPERATIONS.into_iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, name)) => Err(UringError::Operation(name)),
        None => Ok(()),
    }
}

/// The best ring this kernel has.
///
/// Any thread may use it, one after another: engines are made where disks are configured and run
/// where queues are served. So there is no IORING_SETUP_SINGLE_ISSUER, nor, as it needs that,
/// IORING_SETUP_DEFER_TASKRUN, under which moreover `poll` on the ring misses completions that
/// come from the kernel's own threads (seen on Linux 6.18), and which measured no gain.
fn build(entries: u32) -> Result<IoUring, UringError> {
    let mut cooperative = IoUring::builder();
    cooperative.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    let built = match cooperative.build(entries) {
        // Before Linux 5.19.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        other => other,
    };
    built.map_err(|source| UringError::new("io_uring_setup", source))
}
