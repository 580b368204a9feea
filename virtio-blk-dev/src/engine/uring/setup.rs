//! Making rings.

use std::io;

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

/// Checks that the kernel has the operations that the engine needs, and that the ring can be entered: a
/// seccomp filter may forbid only that.
pub(super) fn probe(ring: &mut IoUring) -> Result<(), UringError> {
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
pub(super) fn check_entering(ring: &mut IoUring, flags: squeue::Flags) -> Result<(), UringError> {
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
pub(super) fn build(entries: u32) -> Result<IoUring, UringError> {
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

/// Adds or replaces files of the table (linux/io_uring.h, `enum io_uring_register_op`).
const IORING_REGISTER_FILES_UPDATE: u8 = 6;

/// A ring with a table of one registered file, which is none yet. It is restricted to these operations on
/// that file; nothing but the file can be registered.
pub(super) fn restricted(entries: u32) -> Result<IoUring, UringError> {
    let ring = build_with(entries, |builder| builder.setup_r_disabled());
    let mut ring = ring.map_err(UringError::restrictions)?;
    check_operations(&ring)?;
    let fixed = squeue::Flags::FIXED_FILE;
    let mut restrictions = [
        Restriction::register_op(IORING_REGISTER_FILES_UPDATE),
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
    let submitter = ring.submitter();
    submitter
        .register_files(&[-1])
        .map_err(|source| UringError::new("IORING_REGISTER_FILES", source))?;
    submitter
        .register_restrictions(&mut restrictions)
        .map_err(|source| UringError::new("IORING_REGISTER_RESTRICTIONS", source))
        .map_err(UringError::restrictions)?;
    submitter
        .register_enable_rings()
        .map_err(|source| UringError::new("IORING_REGISTER_ENABLE_RINGS", source))?;
    check_entering(&mut ring, fixed)?;
    Ok(ring)
}
