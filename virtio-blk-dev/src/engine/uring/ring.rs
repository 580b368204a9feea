use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::{Builder, IoUring, Probe, opcode, squeue};

use super::error::UringError;

/// The operations that the engine needs, which every kernel since 5.6 has.
const OPERATIONS: [(u8, &str); 4] = [
    (opcode::Readv::CODE, "IORING_OP_READV"),
    (opcode::Read::CODE, "IORING_OP_READ"),
    (opcode::Fsync::CODE, "IORING_OP_FSYNC"),
    (opcode::Fallocate::CODE, "IORING_OP_FALLOCATE"),
];

/// A submission and a completion queue, and the number of operations in them and in the kernel.
pub(super) struct Ring {
    ring: IoUring,
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
        Ok(Self { ring, held: 0, next: 0, broken: None })
    }

    /// Enables a ring created by [`disabled`], for operations on `file`.
    pub(super) fn enable(mut ring: IoUring, file: BorrowedFd<'_>) -> Result<Self, UringError> {
        let submitter = ring.submitter();
        submitter
            .register_files(&[file.as_raw_fd()])
            .map_err(|source| UringError::new("IORING_REGISTER_FILES", source))?;
        submitter
            .register_enable_rings()
            .map_err(|source| UringError::new("IORING_REGISTER_ENABLE_RINGS", source))?;
        check_entering(&mut ring, squeue::Flags::FIXED_FILE)?;
        Ok(Self { ring, held: 0, next: 0, broken: None })
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

/// Checks that the kernel has the operations that the engine needs, and that the ring can be entered: a
/// seccomp filter may forbid only that.
fn probe(ring: &mut IoUring) -> Result<(), UringError> {
    check_operations(ring)?;
    check_entering(ring, squeue::Flags::empty())
}

fn check_operations(ring: &IoUring) -> Result<(), UringError> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|source| UringError::new("IORING_REGISTER_PROBE", source))?;
    if let Some((_, name)) = OPERATIONS.into_iter().find(|(code, _)| !probe.is_supported(*code)) {
        return Err(UringError::Operation(name));
    }
    Ok(())
}

/// Submits a no-op.
fn check_entering(ring: &mut IoUring, flags: squeue::Flags) -> Result<(), UringError> {
    let entered = |source| UringError::new("io_uring_enter", source);
    // SAFETY: the entry names no memory.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build().flags(flags)) };
    pushed.map_err(|_| entered(io::ErrorKind::StorageFull.into()))?;
    while let Err(error) = ring.submit_and_wait(1) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(entered(error));
        }
    }
    match ring.completion().next().map(|entry| entry.result()) {
        Some(0) => Ok(()),
        Some(errno) => Err(entered(io::Error::from_raw_os_error(errno.saturating_neg()))),
        None => Err(entered(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Makes a ring with the flags that this kernel has.
///
/// The ring is made by one thread and used by another. So IORING_SETUP_SINGLE_ISSUER can't be used, nor
/// IORING_SETUP_DEFER_TASKRUN, which needs it. Under the latter `poll` on the ring also misses completions
/// from kernel threads (seen on Linux 6.18), and it measured no gain.
fn build(entries: u32) -> Result<IoUring, UringError> {
    build_with(entries, |builder| builder)
}

fn build_with(
    entries: u32,
    more: impl Fn(&mut Builder) -> &mut Builder,
) -> Result<IoUring, UringError> {
    let mut cooperative = IoUring::builder();
    cooperative.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    let built = match more(&mut cooperative).build(entries) {
        // Before Linux 5.19.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            more(&mut IoUring::builder()).build(entries)
        }
        other => other,
    };
    built.map_err(|source| UringError::new("io_uring_setup", source))
}

/// A ring that is disabled until [`Ring::enable`], and then restricted to these operations on registered
/// files; nothing else can be registered.
pub(super) fn disabled(entries: u32) -> Result<IoUring, UringError> {
    let ring = build_with(entries, |builder| builder.setup_r_disabled());
    let ring = ring.map_err(UringError::restrictions)?;
    check_operations(&ring)?;
    let fixed = squeue::Flags::FIXED_FILE;
    let mut restrictions = [
        Restriction::sqe_flags_required(fixed.bits()),
        Restriction::sqe_flags_allowed((fixed | squeue::Flags::ASYNC).bits()),
        Restriction::sqe_op(opcode::Nop::CODE),
        Restriction::sqe_op(opcode::Read::CODE),
        Restriction::sqe_op(opcode::Readv::CODE),
        Restriction::sqe_op(opcode::Write::CODE),
        Restriction::sqe_op(opcode::Writev::CODE),
        Restriction::sqe_op(opcode::Fsync::CODE),
        Restriction::sqe_op(opcode::Fallocate::CODE),
    ];
    ring.submitter()
        .register_restrictions(&mut restrictions)
        .map_err(|source| UringError::new("IORING_REGISTER_RESTRICTIONS", source))
        .map_err(UringError::restrictions)?;
    Ok(ring)
}
