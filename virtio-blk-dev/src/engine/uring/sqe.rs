use io_uring::{opcode, squeue, types};

use super::bounce::Transfer;
use super::slots::{Slot, Stage};
use crate::engine::Operation;

/// The image: the one file that is registered with the ring.
const IMAGE: types::Fixed = types::Fixed(0);

/// What Linux transfers at most in one call (`MAX_RW_COUNT`); the rest is a short transfer's.
const TRANSFER_MAX: usize = 0x7fff_f000;

/// What the storage of an image can be told through the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fallocates {
    pub(super) discard: bool,
    pub(super) write_zeroes: bool,
    pub(super) unmap: bool,
}

/// The entry that has the kernel do what is next for `slot`; `None` for what a ring can't do.
pub(super) fn entry(slot: &Slot, fallocates: Fallocates) -> Option<squeue::Entry> {
    if slot.stage == Stage::Sync {
        return Some(sync());
    }
    let offset = slot.io.offset();
    // The kernel's offsets are signed, and -1 is the file's position.
    i64::try_from(offset).ok()?;
    let entry = match slot.io.operation() {
        Operation::Read(sink) => match sink.iovecs() {
            [] => return None,
            [iovec] => opcode::Read::new(IMAGE, iovec.iov_base.cast(), clamp(iovec.iov_len))
                .offset(offset)
                .build(),
            iovecs => {
                opcode::Readv::new(IMAGE, iovecs.as_ptr(), count(iovecs)).offset(offset).build()
            }
        },
        Operation::Write(source) => {
            let flags = write_flags(slot);
            match source.iovecs() {
                [] => return None,
                [iovec] => opcode::Write::new(IMAGE, iovec.iov_base.cast(), clamp(iovec.iov_len))
                    .offset(offset)
                    .rw_flags(flags)
                    .build(),
                iovecs => opcode::Writev::new(IMAGE, iovecs.as_ptr(), count(iovecs))
                    .offset(offset)
                    .rw_flags(flags)
                    .build(),
            }
        }
        Operation::Flush => sync(),
        // The kernel refuses to do nothing.
        Operation::Discard | Operation::WriteZeroes { .. } if slot.io.remaining() == 0 => {
            return None;
        }
        Operation::Discard if fallocates.discard => punch(slot),
        Operation::WriteZeroes { unmap: true } if fallocates.unmap => punch(slot),
        Operation::WriteZeroes { unmap: false } if fallocates.write_zeroes => {
            fallocate(slot, libc::FALLOC_FL_ZERO_RANGE)
        }
        Operation::Discard | Operation::WriteZeroes { .. } | Operation::SecureErase => return None,
    };
    Some(if slot.punt { entry.flags(squeue::Flags::ASYNC) } else { entry })
}

/// The entry that transfers what is next for `slot` through a buffer.
pub(super) fn bounced(slot: &Slot, transfer: Transfer) -> squeue::Entry {
    let Transfer { memory, offset, len, registered } = transfer;
    let memory = memory.as_ptr();
    let entry = match (slot.io.operation(), registered) {
        (Operation::Read(_), true) => {
            opcode::ReadFixed::new(IMAGE, memory, len, 0).offset(offset).build()
        }
        (Operation::Read(_), false) => opcode::Read::new(IMAGE, memory, len).offset(offset).build(),
        (_, true) => opcode::WriteFixed::new(IMAGE, memory, len, 0)
            .offset(offset)
            .rw_flags(write_flags(slot))
            .build(),
        (_, false) => opcode::Write::new(IMAGE, memory, len)
            .offset(offset)
            .rw_flags(write_flags(slot))
            .build(),
    };
    if slot.punt { entry.flags(squeue::Flags::ASYNC) } else { entry }
}

fn write_flags(slot: &Slot) -> libc::c_int {
    if slot.io.is_durable() { libc::RWF_DSYNC } else { 0 }
}

/// A flush is about writes that have completed (virtio 1.2 §5.2.6.2), and the kernel's about every
/// write that has returned: so it need not wait for anything in the ring.
fn sync() -> squeue::Entry {
    opcode::Fsync::new(IMAGE).flags(types::FsyncFlags::DATASYNC).build()
}

fn punch(slot: &Slot) -> squeue::Entry {
    fallocate(slot, libc::FALLOC_FL_PUNCH_HOLE)
}

fn fallocate(slot: &Slot, mode: libc::c_int) -> squeue::Entry {
    opcode::Fallocate::new(IMAGE, slot.io.remaining())
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
