use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// What memory, offsets and lengths of an I/O must be multiples of, for the kernel to take it
/// without copying: powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Of addresses in memory.
    pub memory: u32,
    /// Of offsets in the image, and of the length of each buffer.
    pub offset: u32,
}

impl Alignment {
    /// Of buffered I/O: any byte will do.
    pub const BYTE: Self = Self { memory: 1, offset: 1 };

    /// Whether a transfer of these buffers at `offset` satisfies it.
    pub fn is_met(&self, iovecs: &[libc::iovec], offset: u64) -> bool {
        self.is_met_by(offset)
            && iovecs.iter().all(|iovec| {
                self.is_met_by(iovec.iov_len as u64)
                    && iovec.iov_base.addr() & mask(self.memory) as usize == 0
            })
    }

    /// Whether an offset or a length satisfies it.
    pub fn is_met_by(&self, offset: u64) -> bool {
        offset & mask(self.offset) == 0
    }
}

fn mask(alignment: u32) -> u64 {
    u64::from(alignment.saturating_sub(1))
}

/// Bytes of buffers.
pub(super) fn total(iovecs: &[libc::iovec]) -> usize {
    iovecs.iter().fold(0usize, |sum, iovec| sum.saturating_add(iovec.iov_len))
}

/// Bytes of a bounce buffer, and so of one transfer through it.
const BUFFER_SIZE: usize = 256 << 10;

/// Buffers kept for the next calls; a call beyond makes its own.
const KEPT: usize = 4;

/// Direct I/O of buffers that are not aligned, or that the kernel can't pin, through some that are.
#[derive(Debug)]
pub(super) struct Bounce {
    pub(super) alignment: Alignment,
    idle: Mutex<Vec<Buffer>>,
    /// The kernel refused to pin guest memory: mappings of another domain's pages are of that
    /// kind, all of them.
    unpinnable: AtomicBool,
}

impl Bounce {
    pub(super) fn new(alignment: Alignment) -> Self {
        Self { alignment, idle: Mutex::default(), unpinnable: AtomicBool::new(false) }
    }

    /// Whether the kernel can be given the buffers themselves.
    pub(super) fn takes(&self, iovecs: &[libc::iovec], offset: u64) -> bool {
        !self.unpinnable.load(Ordering::Relaxed) && self.alignment.is_met(iovecs, offset)
    }

    /// Whether `error` says that the memory can't be pinned, which is remembered.
    pub(super) fn is_unpinnable(&self, error: &io::Error) -> bool {
        let unpinnable = error.raw_os_error() == Some(libc::EFAULT);
        if unpinnable {
            self.unpinnable.store(true, Ordering::Relaxed);
        }
        unpinnable
    }

    /// Reads the blocks around `len` bytes at `offset`, as many as a buffer has room for, and
    /// hands over what was asked for of them.
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

    /// Writes `len` bytes at `offset`, or as many of them as a buffer has room for.
    ///
    /// A part of a block would have to be read, changed and written while other queues write to
    /// the rest of it: that is refused, as the guest was told the block size.
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

    fn with_buffer<T>(&self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let mut buffer = kept.unwrap_or_else(|| Buffer::new(self.alignment.memory));
        let result = work(buffer.bytes());
        let mut idle = idle();
        if idle.len() < KEPT {
            idle.push(buffer);
        }
        result
    }
}

/// [`BUFFER_SIZE`] bytes that begin at an aligned address.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub(super) fn new(alignment: u32) -> Self {
        let alignment = alignment.max(1) as usize;
        let bytes = vec![0; BUFFER_SIZE.saturating_add(alignment)];
        let start = bytes.as_ptr().align_offset(alignment);
        Self { bytes, start }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let end = self.start.saturating_add(BUFFER_SIZE);
        self.bytes.get_mut(self.start..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: Alignment = Alignment { memory: 4096, offset: 4096 };

    #[test]
    fn a_read_of_part_of_a_block_reads_the_block() {
        let bounce = Bounce::new(BLOCKS);
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
        let bounce = Bounce::new(BLOCKS);
        let all = |room: &mut [u8], _| Ok(room.len());
        assert_eq!(bounce.read(512, 1 << 20, all, <[u8]>::len).unwrap(), BUFFER_SIZE - 512);
        assert_eq!(bounce.read(512, 4096, |_, _| Ok(512), <[u8]>::len).unwrap(), 0);
        assert_eq!(bounce.read(512, 4096, |_, _| Ok(0), <[u8]>::len).unwrap(), 0);
    }

    #[test]
    fn a_write_of_part_of_a_block_is_refused() {
        let bounce = Bounce::new(BLOCKS);
        for (offset, len) in [(512, 4096), (0, 512), (4096, 4608)] {
            let result = bounce.write(offset, len, |_| panic!(), |_, _| panic!());
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        let n = bounce.write(4096, 1 << 20, |room| room.len(), |data, _| Ok(data.len()));
        assert_eq!(n.unwrap(), BUFFER_SIZE);
    }

    #[test]
    fn memory_that_cant_be_pinned_is_not_tried_again() {
        let bounce = Bounce::new(Alignment::BYTE);
        assert!(bounce.takes(&[], 0));
        assert!(!bounce.is_unpinnable(&io::Error::from_raw_os_error(libc::EIO)));
        assert!(bounce.takes(&[], 0));
        assert!(bounce.is_unpinnable(&io::Error::from_raw_os_error(libc::EFAULT)));
        assert!(!bounce.takes(&[], 0));
    }

    #[test]
    fn idle_buffers_are_kept_and_bounded() {
        let bounce = Bounce::new(BLOCKS);
        fn nested(bounce: &Bounce, depth: usize) {
            if depth > 0 {
                bounce.with_buffer(|_| nested(bounce, depth - 1));
            }
        }
        nested(&bounce, 1);
        nested(&bounce, 1);
        assert_eq!(bounce.idle.lock().unwrap().len(), 1);
        nested(&bounce, KEPT + 3);
        assert_eq!(bounce.idle.lock().unwrap().len(), KEPT);
    }

    #[test]
    fn alignment_is_of_address_length_and_offset() {
        let alignment = Alignment { memory: 4, offset: 512 };
        let iovec = |addr: usize, iov_len| libc::iovec {
            iov_base: std::ptr::without_provenance_mut(addr),
            iov_len,
        };
        assert!(alignment.is_met(&[iovec(4, 512), iovec(8, 1024)], 1536));
        assert!(!alignment.is_met(&[iovec(4, 512)], 256));
        assert!(!alignment.is_met(&[iovec(4, 512), iovec(6, 512)], 512));
        assert!(!alignment.is_met(&[iovec(4, 512), iovec(8, 8)], 512));
        assert!(Alignment::BYTE.is_met(&[iovec(7, 3)], 11));
    }
}
