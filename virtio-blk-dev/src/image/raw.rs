use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::alignment::Alignment;
use super::bounce_io::{BounceIo, total};
use super::error::OpenError;
use super::flusher::{Flusher, reopen};
use super::range_call::RangeCall;
use super::raw_files::{RawFacts, RawFiles};
use super::spares::Spares;
use super::warning::{HEAD, ImageWarning, other_format};
use super::wear::Wear;
use super::{Commands, Image, Lifetime, Topology, sys};
use crate::aligned_buffer::AlignedBuffer;
use crate::buffers::{Sink, Source};

/// A file or block device whose bytes are the disk's bytes.
///
/// The caller states the format: it is never detected from the contents, so a guest that writes another
/// format's header into its disk changes nothing.
///
/// If the file is truncated while it is open, reads beyond the new end fail. Writes there extend the file
/// again, with a hole, but never beyond [`capacity`](Image::capacity), which the guest was told. To accept
/// the smaller size call [`refresh_capacity`](Self::refresh_capacity). A deleted file stays usable until it
/// is closed.
///
/// On a full file system a write that needs space fails with `ENOSPC`, with or without a write cache; nothing
/// written before is lost, and other requests still succeed. Some file systems, and thin volumes, detect this
/// only on write-back. Then the next flush or durable write fails, and with it every later one, as after any
/// other write-back error (see [`Durability`](crate::Durability)).
#[derive(Debug)]
pub struct RawImage {
    file: File,
    capacity: AtomicU64,
    trimmed: AtomicU64,
    topology: Topology,
    commands: Commands,
    read_only: bool,
    /// For an image open for direct I/O.
    bounce: Option<BounceIo>,
    is_block_device: bool,
    /// With [`Commands::lifetime`].
    wear: Option<Wear>,
    spares: Spares,
}

impl RawImage {
    /// The image of these files.
    pub(super) fn new(files: RawFiles) -> Result<Self, OpenError> {
        let RawFiles { facts, file, wear, spares } = files;
        let RawFacts { path, read_only, is_block_device, topology, commands, alignment, .. } =
            facts;
        let image = Self {
            file,
            capacity: AtomicU64::new(0),
            trimmed: AtomicU64::new(0),
            topology,
            commands,
            read_only,
            bounce: alignment.map(BounceIo::new),
            is_block_device,
            wear,
            spares: Spares::new(spares),
        };
        match image.refresh_capacity() {
            Ok(0) => {
                let (size, block) = (image.trimmed(), topology.logical_block_size);
                Err(OpenError::TooSmall { path, size, block })
            }
            Ok(_) => Ok(image),
            Err(source) => Err(OpenError::Size { path, source }),
        }
    }

    /// Bytes at the file's end that are less than a logical block, which the guest doesn't see.
    pub fn trimmed(&self) -> u64 {
        self.trimmed.load(Ordering::Relaxed)
    }

    /// Reads the size of the file or device again, after it was resized, and returns the new
    /// [`capacity`](Image::capacity). Requests beyond it fail, also if it has become smaller than what the
    /// guest was told.
    ///
    /// # Errors
    /// The host's; the capacity doesn't change then.
    pub fn refresh_capacity(&self) -> io::Result<u64> {
        let size = self.size()?;
        let capacity = self.whole_blocks(size);
        self.capacity.store(capacity, Ordering::Relaxed);
        self.trimmed.store(size.saturating_sub(capacity), Ordering::Relaxed);
        Ok(capacity)
    }

    /// The alignment that the kernel demands. An engine that makes its own system calls must copy data
    /// through an aligned buffer if it [isn't aligned](Alignment::is_met), or if the kernel fails the call with
    /// `EFAULT`: direct I/O pins the memory, which isn't possible with another domain's.
    pub fn alignment(&self) -> Alignment {
        self.bounce.as_ref().map_or(Alignment::BYTE, |bounce| bounce.alignment)
    }

    /// Whether the image is open for direct I/O, which bypasses the page cache.
    pub fn is_direct(&self) -> bool {
        self.bounce.is_some()
    }

    /// Whether this is a block device rather than a file. The [`RangeCall`]s depend on it.
    pub fn is_block_device(&self) -> bool {
        self.is_block_device
    }

    /// A header of another format gives a warning, not an error: the guest may have written it.
    fn looks_like_another(&self) -> Option<ImageWarning> {
        let mut buffer = AlignedBuffer::new(HEAD, HEAD).ok()?;
        let head = buffer.bytes();
        let read = self.file.read_at(head, 0).ok()?;
        other_format(head.get(..read)?).map(|found| ImageWarning::OtherFormat { found })
    }

    /// An open file description of the image's file for one engine, which gets every write-back error from
    /// now on: a [spare](super::RawOptions::spares) one, or a new one. `None` for a read-only image, and if
    /// there is no spare one and the file can't be opened again: there is no /proc, or the process has dropped
    /// the privilege.
    pub(crate) fn reopen(&self) -> Option<Arc<File>> {
        if self.read_only {
            return None;
        }
        let reopened = || reopen(&self.file, self.is_direct()).ok().map(Arc::new);
        self.spares.take().or_else(reopened)
    }

    fn size(&self) -> io::Result<u64> {
        match self.is_block_device {
            true => sys::device_size(&self.file),
            false => Ok(self.file.metadata()?.len()),
        }
    }

    fn whole_blocks(&self, size: u64) -> u64 {
        let partial = size.checked_rem(self.topology.logical_block_size.into());
        size.saturating_sub(partial.unwrap_or(0))
    }

    /// Fails if the image is read-only, or the range is beyond its end.
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

    /// Writes zeroes as data.
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

/// Zeroes to write, aligned for direct I/O.
#[repr(align(4096))]
struct Zeroes([u8; 128 << 10]);

static ZEROES: Zeroes = Zeroes([0; 128 << 10]);

/// For engines that make their own system calls. They must refuse writes beyond
/// [`capacity`](Image::capacity), which would extend the file, and need [`alignment`](RawImage::alignment)
/// and [`RangeCall`].
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
        let read = |fd, (first, count), position| match iovecs {
            // One piece is the most frequent case, and cheaper without a list.
            // SAFETY: `transfer` passes the descriptor of the open file, and the memory of `iovecs` is
            // writable while `sink` lives. The guest sharing it is no concern of the kernel, which copies into it.
            [piece] => unsafe { libc::pread64(fd, piece.iov_base, piece.iov_len, position) },
            // SAFETY: as above.
            _ => unsafe { libc::preadv64(fd, first, count, position) },
        };
        match self.transfer(iovecs, offset, read) {
            Transfer::Done(result) => result,
            Transfer::NeedsBounce(bounce) => self.read_bounced(bounce, sink, offset),
        }
    }

    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize> {
        let iovecs = source.iovecs();
        self.may_change(offset, total(iovecs) as u64)?;
        let write = |fd, (first, count), position| match iovecs {
            // SAFETY: as above, the memory of `iovecs` being readable while `source` lives.
            [piece] => unsafe { libc::pwrite64(fd, piece.iov_base, piece.iov_len, position) },
            // SAFETY: as above.
            _ => unsafe { libc::pwritev64(fd, first, count, position) },
        };
        match self.transfer(iovecs, offset, write) {
            Transfer::Done(result) => result,
            Transfer::NeedsBounce(bounce) => self.write_bounced(bounce, source, offset),
        }
    }

    fn cached_file(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_direct()).then(|| self.as_fd())
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn flusher(&self) -> Option<Box<dyn Flusher>> {
        Some(Box::new(self.reopen()?))
    }

    /// Punches a hole into a file; the kernel zeroes partial blocks at its edges. On a device, parts of
    /// logical blocks are left unchanged.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.may_change(offset, len)?;
        if self.commands.discard.is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (start, end) = match self.is_block_device {
            true => {
                let block = u64::from(self.topology.logical_block_size);
                let start = offset.checked_next_multiple_of(block).unwrap_or(u64::MAX);
                (start, self.whole_blocks(offset.saturating_add(len)))
            }
            false => (offset, offset.saturating_add(len)),
        };
        match end.checked_sub(start) {
            Some(len @ 1..) => self.call(RangeCall::discard(self.is_block_device()), start, len),
            _ => Ok(()),
        }
    }

    /// Writes zeroes as data if the storage has no command for it.
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
        self.wear.as_ref().and_then(Wear::read).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// What came of a transfer between the file and the memory of a request.
enum Transfer<'a> {
    Done(io::Result<usize>),
    /// The kernel can't access the memory directly.
    NeedsBounce(&'a BounceIo),
}

impl RawImage {
    /// Transfers by `call`, which takes the descriptor, the list of pieces and the position in the file.
    #[inline]
    fn transfer(
        &self,
        iovecs: &[libc::iovec],
        offset: u64,
        call: impl FnOnce(RawFd, (*const libc::iovec, libc::c_int), libc::off64_t) -> libc::ssize_t,
    ) -> Transfer<'_> {
        if let Some(bounce) = self.bounce.as_ref().filter(|b| !b.takes(iovecs, offset)) {
            return Transfer::NeedsBounce(bounce);
        }
        let position = match file_offset(offset) {
            Ok(position) => position,
            Err(error) => return Transfer::Done(Err(error)),
        };
        let result = transferred(call(self.file.as_raw_fd(), clamp(iovecs), position));
        match (&result, &self.bounce) {
            (Err(error), Some(bounce)) if bounce.is_unpinnable(error) => {
                Transfer::NeedsBounce(bounce)
            }
            _ => Transfer::Done(result),
        }
    }

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

/// Limits the list to what a system call accepts. The rest is transferred as after a short transfer.
fn clamp(iovecs: &[libc::iovec]) -> (*const libc::iovec, libc::c_int) {
    (iovecs.as_ptr(), iovecs.len().min(libc::UIO_MAXIOV as usize) as libc::c_int)
}

fn file_offset(offset: u64) -> io::Result<libc::off64_t> {
    offset.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn transferred(n: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
