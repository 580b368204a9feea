use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::alignment::Alignment;
use super::bounce_io::{BounceIo, total};
use super::device::Device;
use super::flusher::{Flusher, reopen};
use super::range::RangeCall;
use super::warning::{HEAD, ImageWarning, other_format};
use super::{Commands, Image, Lifetime, Topology, sys};
use crate::aligned_buffer::AlignedBuffer;
use crate::buffers::{Sink, Source};

/// A file or block device whose bytes are the disk's bytes.
///
/// The format is what the caller states: contents are never looked at, so a guest that writes
/// another format's header into its disk changes nothing.
///
/// A file that is cut short or deleted while it is open harms nobody: reads beyond the new end
/// fail, and a write there makes the file grow again, with a hole before it, though never beyond
/// [`capacity`](Image::capacity). The guest was told of that capacity, and what it stores within
/// it is kept; [`refresh_capacity`](Self::refresh_capacity) makes a smaller size count.
///
/// On a full file system a write that needs room fails with `ENOSPC`, with a write cache and without,
/// and no other: nothing that was written before is lost, and the disk goes on. Some file systems, and
/// thin volumes, find out only when they write back what they had taken. Then the next flush fails, or a write that
/// was to be stable, and with it every later one, as after any other write-back error (see
/// [`Durability`](crate::Durability)).
#[derive(Debug)]
pub struct RawImage {
    pub(super) file: File,
    pub(super) capacity: AtomicU64,
    pub(super) trimmed: AtomicU64,
    pub(super) topology: Topology,
    pub(super) commands: Commands,
    pub(super) read_only: bool,
    /// Of an image open for direct I/O.
    pub(super) bounce: Option<BounceIo>,
    /// Of an image that is a block device.
    pub(super) device: Option<Device>,
}

impl RawImage {
    /// Bytes at the file's end that are no whole logical block, and that the guest doesn't see.
    pub fn trimmed(&self) -> u64 {
        self.trimmed.load(Ordering::Relaxed)
    }

    /// Reads anew how large the file or device is, after the operator resized it, and returns the
    /// [`capacity`](Image::capacity) from now on. Requests beyond it fail; to make an image
    /// smaller than what its guest uses is the caller's choice.
    ///
    /// # Errors
    /// The host's; the capacity stays what it was.
    pub fn refresh_capacity(&self) -> io::Result<u64> {
        let size = self.size()?;
        let capacity = self.whole_blocks(size);
        self.capacity.store(capacity, Ordering::Relaxed);
        self.trimmed.store(size.saturating_sub(capacity), Ordering::Relaxed);
        Ok(capacity)
    }

    /// What the kernel demands of memory, offset and lengths. An engine that makes its own system
    /// calls copies what [doesn't meet](Alignment::is_met) it through memory that does, and also
    /// what the kernel refuses with `EFAULT`: direct I/O pins its memory, and another domain's
    /// can't be.
    pub fn alignment(&self) -> Alignment {
        self.bounce.as_ref().map_or(Alignment::BYTE, |bounce| bounce.alignment)
    }

    /// Whether the page cache is gone around.
    pub fn is_direct(&self) -> bool {
        self.bounce.is_some()
    }

    /// Whether this is a block device, and not a file. It decides on the [`RangeCall`]s.
    pub fn is_block_device(&self) -> bool {
        self.device.is_some()
    }

    /// Nothing but a warning comes of what the image begins with: a guest may have written it.
    fn looks_like_another(&self) -> Option<ImageWarning> {
        let mut buffer = AlignedBuffer::new(HEAD, HEAD).ok()?;
        let head = buffer.bytes();
        let read = self.file.read_at(head, 0).ok()?;
        other_format(head.get(..read)?).map(|found| ImageWarning::OtherFormat { found })
    }

    /// The image's file with an open file description of its own, which has every write-back error
    /// from now on reported to it. `None` where the image is only read, and where there is none to be
    /// had: without /proc, or without the right to open the file that the process once had.
    pub(crate) fn reopen(&self) -> Option<File> {
        let reopened = || reopen(&self.file, self.is_direct()).ok();
        (!self.read_only).then(reopened).flatten()
    }

    fn size(&self) -> io::Result<u64> {
        match self.device {
            Some(_) => sys::device_size(&self.file),
            None => Ok(self.file.metadata()?.len()),
        }
    }

    fn whole_blocks(&self, size: u64) -> u64 {
        let partial = size.checked_rem(self.topology.logical_block_size.into());
        size.saturating_sub(partial.unwrap_or(0))
    }

    /// Refuses what would change an image open for reading, or make a file grow.
    pub(crate) fn may_change(&self, offset: u64, len: u64) -> io::Result<()> {
        let errno = if self.read_only {
            libc::EBADF
        } else if offset.checked_add(len).is_none_or(|end| end > self.capacity()) {
            libc::ENOSPC
        } else {
            return Ok(());
        };
        Err(io::Error::from_raw_os_error(errno))
    }

    fn call(&self, call: RangeCall, offset: u64, len: u64) -> io::Result<()> {
        match call {
            RangeCall::Fallocate(mode) => sys::fallocate(&self.file, mode, offset, len),
            RangeCall::Ioctl(request) => sys::device_range(&self.file, request as _, offset, len),
        }
    }

    /// Writes zeroes, which the storage can't be asked for.
    fn store_zeroes(&self, mut offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len);
        while offset < end {
            let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let zeroes = ZEROES.0.get(..left).unwrap_or(&ZEROES.0);
            match self.file.write_at(zeroes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => offset = offset.saturating_add(n as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Zeroes to write, where direct I/O can take them from.
#[repr(align(4096))]
struct Zeroes([u8; 128 << 10]);

static ZEROES: Zeroes = Zeroes([0; 128 << 10]);

/// For engines that make their own system calls. A write beyond [`capacity`](Image::capacity) is
/// theirs to refuse, as it makes a file grow; [`alignment`](RawImage::alignment) and [`RangeCall`]
/// have what else they need.
impl AsFd for RawImage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Image for RawImage {
    fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn topology(&self) -> Topology {
        self.topology
    }

    fn commands(&self) -> Commands {
        self.commands
    }

    fn warnings(&self) -> Vec<ImageWarning> {
        let tail = Some(self.trimmed()).filter(|bytes| *bytes > 0);
        let tail = tail.map(|bytes| ImageWarning::HiddenTail { bytes });
        tail.into_iter().chain(self.looks_like_another()).collect()
    }

    fn is_deleted(&self) -> bool {
        sys::is_deleted(&self.file)
    }

    fn read_vectored_at(&self, sink: Sink<'_>, offset: u64) -> io::Result<usize> {
        let iovecs = sink.iovecs();
        if let Some(bounce) = self.bounce.as_ref().filter(|b| !b.takes(iovecs, offset)) {
            return self.read_bounced(bounce, sink, offset);
        }
        let (first, count) = clamp(iovecs);
        let position = file_offset(offset)?;
        let fd = self.file.as_raw_fd();
        let n = match iovecs {
            // As most are: the kernel is spared the list.
            // SAFETY: the descriptor is open, and the memory of `iovecs` is writable while `sink`
            // lives. The guest sharing it is no concern of the kernel, which copies into it.
            [piece] => unsafe { libc::pread64(fd, piece.iov_base, piece.iov_len, position) },
            // SAFETY: as above.
            _ => unsafe { libc::preadv64(fd, first, count, position) },
        };
        let result = transferred(n);
        match (&result, &self.bounce) {
            (Err(error), Some(bounce)) if bounce.is_unpinnable(error) => {
                self.read_bounced(bounce, sink, offset)
            }
            _ => result,
        }
    }

    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize> {
        let iovecs = source.iovecs();
        self.may_change(offset, total(iovecs) as u64)?;
        if let Some(bounce) = self.bounce.as_ref().filter(|b| !b.takes(iovecs, offset)) {
            return self.write_bounced(bounce, source, offset);
        }
        let (first, count) = clamp(iovecs);
        let position = file_offset(offset)?;
        let fd = self.file.as_raw_fd();
        let n = match iovecs {
            // SAFETY: as above, the memory of `iovecs` being readable while `source` lives.
            [piece] => unsafe { libc::pwrite64(fd, piece.iov_base, piece.iov_len, position) },
            // SAFETY: as above.
            _ => unsafe { libc::pwritev64(fd, first, count, position) },
        };
        let result = transferred(n);
        match (&result, &self.bounce) {
            (Err(error), Some(bounce)) if bounce.is_unpinnable(error) => {
                self.write_bounced(bounce, source, offset)
            }
            _ => result,
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn flusher(&self) -> Option<Box<dyn Flusher>> {
        Some(Box::new(self.reopen()?))
    }

    /// A file gets a hole, whose edges the kernel zeroes where they are no whole blocks. A device
    /// keeps what is not a whole logical block.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.may_change(offset, len)?;
        if self.commands.discard.is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (start, end) = match self.device {
            Some(_) => {
                let block = u64::from(self.topology.logical_block_size);
                let start = offset.checked_next_multiple_of(block).unwrap_or(u64::MAX);
                (start, self.whole_blocks(offset.saturating_add(len)))
            }
            None => (offset, offset.saturating_add(len)),
        };
        match end.checked_sub(start) {
            Some(len @ 1..) => self.call(RangeCall::discard(self.is_block_device()), start, len),
            _ => Ok(()),
        }
    }

    /// Zeroes are written where the storage can't be asked for them.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.may_change(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        for unmap in [true, false].into_iter().filter(|punch| unmap || !punch) {
            match self.call(RangeCall::write_zeroes(unmap), offset, len) {
                Err(error) if RangeCall::is_unsupported(&error) => {}
                result => return result,
            }
        }
        self.store_zeroes(offset, len)
    }

    fn secure_erase(&self, offset: u64, len: u64) -> io::Result<()> {
        self.may_change(offset, len)?;
        if self.commands.secure_erase.is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.call(RangeCall::secure_erase(), offset, len)
    }

    fn lifetime(&self) -> io::Result<Lifetime> {
        let device = self.device.as_ref().filter(|_| self.commands.lifetime);
        device.and_then(Device::lifetime).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

impl RawImage {
    fn read_bounced(&self, bounce: &BounceIo, sink: Sink<'_>, offset: u64) -> io::Result<usize> {
        let read = |room: &mut [u8], offset| self.file.read_at(room, offset);
        bounce.read(offset, total(sink.iovecs()), read, |data| sink.copy_from(data))
    }

    fn write_bounced(
        &self,
        bounce: &BounceIo,
        source: Source<'_>,
        offset: u64,
    ) -> io::Result<usize> {
        let write = |data: &[u8], offset| self.file.write_at(data, offset);
        bounce.write(offset, total(source.iovecs()), |room| source.copy_to(room), write)
    }
}

/// What a system call takes at once; the rest is a short transfer's.
fn clamp(iovecs: &[libc::iovec]) -> (*const libc::iovec, libc::c_int) {
    (iovecs.as_ptr(), iovecs.len().min(libc::UIO_MAXIOV as usize) as libc::c_int)
}

fn file_offset(offset: u64) -> io::Result<libc::off64_t> {
    offset.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn transferred(n: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
