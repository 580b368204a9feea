use io_uring::{opcode, squeue, types};

use super::bounce_buffers::{Direction, Transfer};
use super::slots::{Slot, Stage};
use crate::engine::Operation;

/// The most bytes that Linux transfers in one call (`MAX_RW_COUNT`). The rest is transferred as after a
/// short transfer.
const TRANSFER_MAX: usize = 0x7fff_f000;

/// The image's file, and the commands that the ring can carry out on it.
///
/// The file isn't registered with the ring, unless the ring is restricted and requires it: the kernel
/// would close it some time after the end of the process, and until then its lock would keep out the
/// next process that opens the image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// The descriptor; with `IOSQE_FIXED_FILE` among the flags, its place among the registered.
    pub(super) file: types::Fd,
    /// Of every entry.
    pub(super) flags: squeue::Flags,
    pub(super) discard: bool,
    pub(super) write_zeroes: bool,
    pub(super) unmap: bool,
}

/// The entry for the next step of `slot`; `None` if the ring can't do it.
pub(super) fn entry(slot: &Slot, target: Target) -> Option<squeue::Entry> {
    if slot.stage == Stage::Sync {
        return Some(sync(target));
    }
    let offset = slot.io.offset();
    // The kernel's offsets are signed, and -1 is the file's position.
    i64::try_from(offset).ok()?;
    let entry = match slot.io.operation() {
        Operation::Read(sink) => match sink.iovecs() {
            [] => return None,
            [iovec] => opcode::Read::new(target.file, iovec.iov_base.cast(), clamp(iovec.iov_len))
                .offset(offset)
                .build(),
            iovecs => opcode::Readv::new(target.file, iovecs.as_ptr(), count(iovecs))
                .offset(offset)
                .build(),
        },
        Operation::Write(source) => {
            let flags = write_flags(slot);
            match source.iovecs() {
                [] => return None,
                [iovec] => {
                    opcode::Write::new(target.file, iovec.iov_base.cast(), clamp(iovec.iov_len))
                        .offset(offset)
                        .rw_flags(flags)
                        .build()
                }
                iovecs => opcode::Writev::new(target.file, iovecs.as_ptr(), count(iovecs))
                    .offset(offset)
                    .rw_flags(flags)
                    .build(),
            }
        }
        Operation::Flush => sync(target),
        // fallocate(2) refuses a length of 0.
        Operation::Discard | Operation::WriteZeroes { .. } if slot.io.remaining() == 0 => {
            return None;
        }
        Operation::Discard if target.discard => punch(slot, target),
        Operation::WriteZeroes { unmap: true } if target.unmap => punch(slot, target),
        Operation::WriteZeroes { unmap: false } if target.write_zeroes => {
            fallocate(slot, target, libc::FALLOC_FL_ZERO_RANGE)
        }
        Operation::Discard | Operation::WriteZeroes { .. } | Operation::SecureErase => return None,
    };
    Some(with_flags(entry, slot, target))
}

/// The entry for the next transfer of `slot` through a bounce buffer.
pub(super) fn bounced(slot: &Slot, target: Target, transfer: Transfer) -> squeue::Entry {
    let Transfer { direction, memory, offset, len } = transfer;
    let memory = memory.as_ptr();
    let entry = match direction {
        Direction::In => opcode::Read::new(target.file, memory, len).offset(offset).build(),
        Direction::Out => opcode::Write::new(target.file, memory, len)
            .offset(offset)
            .rw_flags(write_flags(slot))
            .build(),
    };
    with_flags(entry, slot, target)
}

fn with_flags(entry: squeue::Entry, slot: &Slot, target: Target) -> squeue::Entry {
    let force_async = if slot.force_async { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
    entry.flags(target.flags | force_async)
}

fn write_flags(slot: &Slot) -> libc::c_int {
    if slot.io.is_durable() { libc::RWF_DSYNC } else { 0 }
}

/// A flush covers the writes that have completed (virtio 1.2 §5.2.6.2), and fdatasync(2) those that have
/// returned: so the entry needn't wait for others in the ring.
fn sync(target: Target) -> squeue::Entry {
    opcode::Fsync::new(target.file).flags(types::FsyncFlags::DATASYNC).build().flags(target.flags)
}

fn punch(slot: &Slot, target: Target) -> squeue::Entry {
    fallocate(slot, target, libc::FALLOC_FL_PUNCH_HOLE)
}

fn fallocate(slot: &Slot, target: Target, mode: libc::c_int) -> squeue::Entry {
    opcode::Fallocate::new(target.file, slot.io.remaining())
        .offset(slot.io.offset())
        .mode(mode | libc::FALLOC_FL_KEEP_SIZE)
        .build()
}

fn clamp(len: usize) -> u32 {
    len.min(TRANSFER_MAX) as u32
}

fn count(iovecs: &[libc::iovec]) -> u32 {
    iovecs.len().min(libc::UIO_MAXIOV as usize) as u32
}
