mod block;
mod chain;
mod chain_files;
mod check;
mod commit;
mod header;
mod host;
mod journal;
mod refcounts;
mod storage;
#[cfg(all(test, not(miri)))]
mod tests;
mod vmdk;
mod writer;
mod zeroing;

use std::io;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ::imago::FormatAccess;

pub(super) use self::chain_files::{ChainFacts, ChainFiles};

use self::chain::Chain;
use self::journal::Journal;
use self::storage::Layer;
use self::zeroing::Zeroing;
use super::bounce_io::{BounceIo, total};
use super::{Alignment, Commands, Image, ImageWarning, OpenError, Topology};
use crate::buffers::{Sink, Source};
use crate::sector::SECTOR_SIZE;

/// A qcow2 or VMDK image.
///
/// qcow2 images of version 2 and 3 are read and written, with compressed clusters, backing files
/// (which are only read) and external data files; encrypted ones and those with extended L2
/// entries are refused. VMDK images are only read, and only as a descriptor of flat extents.
///
/// Backing and data files are opened by the names in the image, relative to its directory, and locked as raw
/// images are. The image has to state their format: it is never detected from the contents. An untrusted
/// image may name any file that the caller can read, and have tables made for an attack: use
/// `qemu-img convert`, without privileges, first. A damaged image gives errors; one opened for writing is
/// checked completely.
///
/// After a loss of power at any time, data that was flushed into a qcow2 image is there, and other blocks have
/// their old or new content. A flush after clusters were allocated takes two flushes of the file instead of
/// one, and allocating clusters after a discard takes one.
///
/// The capacity is constant: images of these formats can't be resized while they are open.
#[derive(Debug)]
pub struct ImagoImage {
    /// Locked exclusively by operations that change the tables.
    access: RwLock<FormatAccess<Layer>>,
    /// For a writable image.
    journal: Option<Arc<Journal>>,
    /// For copies of guest memory: imago takes references, and there can be none to guest memory.
    bounce: BounceIo,
    capacity: u64,
    /// The unit, in bytes, that can be zeroed by a change of the tables.
    granularity: Option<u64>,
    topology: Topology,
    commands: Commands,
    read_only: bool,
}

impl ImagoImage {
    /// The image of these files.
    pub(super) fn new(files: ChainFiles) -> Result<Self, OpenError> {
        let (path, format, read_only) = (files.path().to_owned(), files.format(), files.read_only);
        let Chain { access, journal } = chain::join(files)?;
        let size = access.size();
        let capacity = size.saturating_sub(size % SECTOR_SIZE);
        if capacity == 0 {
            let block = SECTOR_SIZE as u32;
            return Err(OpenError::TooSmall { path, size, block });
        }
        // This is the cluster size for qcow2 version 3; older versions support neither zeroes nor discards.
        let granularity = access.inner().zero_granularity();
        let cluster = granularity.and_then(|bytes| bytes.try_into().ok());
        let commands = match read_only {
            true => Commands::default(),
            false => Commands {
                discard: cluster,
                write_zeroes: true,
                write_zeroes_may_unmap: cluster.is_some(),
                ..Commands::default()
            },
        };
        let image = Self {
            access: RwLock::new(access),
            journal,
            bounce: BounceIo::new(Alignment::BYTE),
            capacity,
            granularity,
            topology: Topology { opt_io_size: cluster.unwrap_or(0), ..Topology::default() },
            commands,
            read_only,
        };
        // Features in the header that writes invalidate are cleared before the first write.
        if image.journal.as_ref().is_some_and(|journal| !journal.is_empty()) {
            image.flush().map_err(|source| OpenError::Format { path, format, source })?;
        }
        Ok(image)
    }

    fn journal(&self) -> io::Result<&Journal> {
        self.journal.as_deref().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// Flushes tables and data to stable storage.
    fn flush_tables(&self) -> io::Result<()> {
        let journal = self.journal()?;
        journal.flush(|| {
            let access = self.alone();
            access.flush()?;
            journal.snapshot()
        })
    }

    fn shared(&self) -> RwLockReadGuard<'_, FormatAccess<Layer>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, FormatAccess<Layer>> {
        self.access.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_within(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.capacity)
    }

    fn may_change(&self, offset: u64, len: u64) -> io::Result<()> {
        let errno = if self.read_only {
            libc::EBADF
        } else if !self.is_within(offset, len) {
            libc::ENOSPC
        } else {
            return Ok(());
        };
        Err(io::Error::from_raw_os_error(errno))
    }

    /// The range of whole clusters between two offsets, in bytes. The image's last cluster may be shorter.
    fn whole_clusters(&self, offset: u64, end: u64) -> Range<u64> {
        let size = self.shared().size();
        let whole = self.granularity.and_then(|cluster| {
            let last = if end == size { 0 } else { end.checked_rem(cluster)? };
            Some(offset.checked_next_multiple_of(cluster)?..end.saturating_sub(last))
        });
        whole.filter(|whole| !whole.is_empty()).unwrap_or(end..end)
    }

    /// Writes zeroes.
    fn store_zeroes(&self, offset: u64, end: u64) -> io::Result<()> {
        let zeroes = [0; 64 << 10];
        let mut offset = offset;
        while offset < end {
            let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let written = self.write_some(zeroes.get(..left).unwrap_or(&zeroes), offset)?;
            offset = offset.saturating_add(written as u64);
        }
        Ok(())
    }
}

impl Image for ImagoImage {
    fn capacity(&self) -> u64 {
        self.capacity
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
        let bytes = self.shared().size().saturating_sub(self.capacity);
        (bytes > 0).then_some(ImageWarning::HiddenTail { bytes }).into_iter().collect()
    }

    /// Also if it is one that the image builds on.
    fn is_deleted(&self) -> bool {
        let access = self.shared();
        access.inner().collect_storage_dependencies().into_iter().any(Layer::is_deleted)
    }

    fn read_vectored_at(&self, sink: Sink<'_>, offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.capacity.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = total(sink.iovecs()).min(left);
        let read = |room: &mut [u8], offset| {
            let len = room.len();
            self.shared().read(room, offset)?;
            Ok(len)
        };
        self.bounce.read(offset, len, read, |data| sink.copy_from(data))
    }

    fn write_vectored_at(&self, source: Source<'_>, offset: u64) -> io::Result<usize> {
        let len = total(source.iovecs());
        self.may_change(offset, len as u64)?;
        let write = |data: &[u8], offset| self.write_some(data, offset);
        self.bounce.write(offset, len, |room| source.copy_to(room), write)
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.flush_tables() }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.may_change(offset, len)?;
        if self.commands.discard.is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let whole = self.whole_clusters(offset, offset.saturating_add(len));
        self.zero_clusters(whole, Zeroing::Discard)
    }

    /// Writes zeroes as data where the format can't express them, as for a part of a cluster. imago would
    /// check whether the rest of the cluster is zero, and zero all of it, including data that another queue
    /// writes meanwhile.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.may_change(offset, len)?;
        let end = offset.saturating_add(len);
        let whole = self.whole_clusters(offset, end);
        self.store_zeroes(offset, whole.start)?;
        let (whole_end, how) = (whole.end, if unmap { Zeroing::Unmap } else { Zeroing::Keep });
        self.zero_clusters(whole, how)?;
        self.store_zeroes(whole_end, end)
    }
}

/// Writes back the data that the guest didn't flush, if possible, so that detaching loses no more than with
/// other formats.
impl Drop for ImagoImage {
    fn drop(&mut self) {
        if !self.read_only {
            let _ = self.flush_tables();
        }
    }
}
