use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::alignment::{Alignment, mask};
use crate::aligned_buffer::AlignedBuffer;

/// The sum of the lengths.
pub(super) fn total(iovecs: &[libc::iovec]) -> usize {
    iovecs.iter().fold(0usize, |sum, iovec| sum.saturating_add(iovec.iov_len))
}

/// Bytes of a bounce buffer, and the most that one transfer through it moves.
const BUFFER_SIZE: usize = 256 << 10;

/// The most buffers kept for later calls. A call that finds none allocates one.
const KEPT: usize = 4;

/// Direct I/O for memory that isn't aligned or that the kernel can't pin: copies the data through aligned
/// bounce buffers.
#[derive(Debug)]
pub(super) struct BounceIo {
    pub(super) alignment: Alignment,
    idle: Mutex<Vec<AlignedBuffer>>,
    /// The kernel has refused to pin guest memory, as it always does for mappings of another domain's pages.
    unpinnable: AtomicBool,
}

impl BounceIo {
    pub(super) fn new(alignment: Alignment) -> Self {
        Self { alignment, idle: Mutex::default(), unpinnable: AtomicBool::new(false) }
    }

    /// Whether the kernel can access the memory directly.
    pub(super) fn takes(&self, iovecs: &[libc::iovec], offset: u64) -> bool {
        !self.unpinnable.load(Ordering::Relaxed) && self.alignment.is_met(iovecs, offset)
    }

    /// Whether `error` says that the memory can't be pinned. If so, this is remembered.
    pub(super) fn is_unpinnable(&self, error: &io::Error) -> bool {
        let unpinnable = error.raw_os_error() == Some(libc::EFAULT);
        if unpinnable {
            self.unpinnable.store(true, Ordering::Relaxed);
        }
        unpinnable
    }

    /// Reads the blocks around `len` bytes at `offset`, as far as a buffer has room, and passes the
    /// requested bytes of them to `take`.
    pub(super) fn read(
        &self,
        offset: u64,
        len: usize,
        read_at: impl FnOnce(&mut [u8], u64) -> io::Result<usize>,
        take: impl FnOnce(&[u8]) -> usize,
    ) -> io::Result<usize> {
        let head = (offset & mask(self.alignment.offset)) as usize;
        let end = head.saturating_add(len).min(BUFFER_SIZE);
        let blocks = end.next_multiple_of(self.alignment.offset as usize).min(BUFFER_SIZE);
        self.with_buffer(|buffer| {
            let room = buffer.get_mut(..blocks).unwrap_or_default();
            let read = read_at(room, offset.saturating_sub(head as u64))?.min(end);
            Ok(take(buffer.get(head..read).unwrap_or_default()))
        })
    }

    /// Writes `len` bytes at `offset`, as far as a buffer has room.
    ///
    /// Only whole blocks are written: for a part of one the block would have to be read, changed and
    /// written back while other queues may write to the rest of it. The guest knows the block size.
    pub(super) fn write(
        &self,
        offset: u64,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
        write_at: impl FnOnce(&[u8], u64) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !self.alignment.is_met_by(offset | len as u64) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.with_buffer(|buffer| {
            let filled = fill(buffer.get_mut(..len.min(BUFFER_SIZE)).unwrap_or_default());
            write_at(buffer.get(..filled).unwrap_or_default(), offset)
        })
    }

    fn with_buffer<T>(&self, work: impl FnOnce(&mut [u8]) -> io::Result<T>) -> io::Result<T> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let mut buffer = match kept {
            Some(buffer) => buffer,
            None => AlignedBuffer::new(BUFFER_SIZE, self.alignment.memory as usize)?,
        };
        let result = work(buffer.bytes());
        let mut idle = idle();
        if idle.len() < KEPT {
            idle.push(buffer);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: Alignment = Alignment { memory: 4096, offset: 4096 };

    #[test]
    fn a_read_of_part_of_a_block_reads_the_block() {
        let bounce = BounceIo::new(BLOCKS);
        let disk: Vec<u8> = (0..32768u32).map(|n| (n / 7) as u8).collect();
        for (offset, len) in [(0, 512), (512, 512), (4000, 200), (4096, 8192), (12287, 2)] {
            let mut got = Vec::new();
            let n = bounce.read(
                offset as u64,
                len,
                |room, at| {
                    assert!(BLOCKS.is_met_by(at | room.len() as u64));
                    assert_eq!(room.as_ptr().addr() % 4096, 0);
                    room.copy_from_slice(&disk[at as usize..][..room.len()]);
                    Ok(room.len())
                },
                |data| {
                    got.extend_from_slice(data);
                    data.len()
                },
            );
            assert_eq!(n.unwrap(), len);
            assert!(got == disk[offset..offset + len], "{len} bytes at {offset}");
        }
    }

    #[test]
    fn a_read_beyond_what_a_buffer_holds_is_short_and_one_past_the_end_is_empty() {
        let bounce = BounceIo::new(BLOCKS);
        let all = |room: &mut [u8], _| Ok(room.len());
        assert_eq!(bounce.read(512, 1 << 20, all, <[u8]>::len).unwrap(), BUFFER_SIZE - 512);
        assert_eq!(bounce.read(512, 4096, |_, _| Ok(512), <[u8]>::len).unwrap(), 0);
        assert_eq!(bounce.read(512, 4096, |_, _| Ok(0), <[u8]>::len).unwrap(), 0);
    }

    #[test]
    fn a_write_of_part_of_a_block_is_refused() {
        let bounce = BounceIo::new(BLOCKS);
        for (offset, len) in [(512, 4096), (0, 512), (4096, 4608)] {
            let result = bounce.write(offset, len, |_| panic!(), |_, _| panic!());
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        let n = bounce.write(4096, 1 << 20, |room| room.len(), |data, _| Ok(data.len()));
        assert_eq!(n.unwrap(), BUFFER_SIZE);
    }

    #[test]
    fn memory_that_cant_be_pinned_is_not_tried_again() {
        let bounce = BounceIo::new(Alignment::BYTE);
        assert!(bounce.takes(&[], 0));
        assert!(!bounce.is_unpinnable(&io::Error::from_raw_os_error(libc::EIO)));
        assert!(bounce.takes(&[], 0));
        assert!(bounce.is_unpinnable(&io::Error::from_raw_os_error(libc::EFAULT)));
        assert!(!bounce.takes(&[], 0));
    }

    #[test]
    fn idle_buffers_are_kept_and_bounded() {
        let bounce = BounceIo::new(BLOCKS);
        fn nested(bounce: &BounceIo, depth: usize) -> io::Result<()> {
            if depth == 0 { Ok(()) } else { bounce.with_buffer(|_| nested(bounce, depth - 1)) }
        }
        nested(&bounce, 1).unwrap();
        nested(&bounce, 1).unwrap();
        assert_eq!(bounce.idle.lock().unwrap().len(), 1);
        nested(&bounce, KEPT + 3).unwrap();
        assert_eq!(bounce.idle.lock().unwrap().len(), KEPT);
    }
}
