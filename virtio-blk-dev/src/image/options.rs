use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::AtomicU64;

use super::alignment::Alignment;
use super::bounce_io::BounceIo;
use super::device::{self, Device};
use super::error::OpenError;
use super::locked_file::open_locked;
use super::range_call::RangeCall;
use super::raw::RawImage;
use super::{Commands, Topology, sys};
use crate::aligned_buffer::AlignedBuffer;

/// The options for opening a [`RawImage`].
///
/// ```no_run
/// use virtio_blk_dev::RawOptions;
///
/// let image = RawOptions::new().direct(true).open("/dev/vg0/guest")?;
/// # Ok::<(), virtio_blk_dev::OpenError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawOptions {
    read_only: bool,
    direct: bool,
    logical_block_size: Option<u32>,
}

impl RawOptions {
    /// The default: writable, through the host's page cache, with the storage's logical block size, which
    /// is 512 bytes for a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Open for reading only. An image can have any number of readers.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Bypass the host's page cache (`O_DIRECT`, open(2)). Data that isn't aligned as the kernel demands is
    /// copied through a buffer.
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// Set the logical block size that the image's contents were made for. Partition tables depend on it.
    pub fn logical_block_size(mut self, bytes: u32) -> Self {
        self.logical_block_size = Some(bytes);
        self
    }

    /// Opens and locks the file or block device at `path`: exclusively, or together with other
    /// readers. A block device that the host itself uses, for example as a mounted file system, can't be
    /// opened for writing.
    ///
    /// # Errors
    /// See [`OpenError`]; each names `path` and what to do.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<RawImage, OpenError> {
        let path = path.as_ref();
        let (file, metadata) = open_locked(path, self.read_only, self.direct)?;
        let failed = |source| OpenError::Size { path: path.to_owned(), source };
        let device = metadata.file_type().is_block_device().then(|| Device::of(&metadata));

        let mut topology = match device {
            Some(_) => device::topology(&file).map_err(failed)?,
            None => of_file_system(&metadata),
        };
        let storage = topology.logical_block_size;
        let logical = self.logical_block_size.unwrap_or(storage);
        if !logical.is_power_of_two() || !(storage..=65536).contains(&logical) {
            return Err(OpenError::LogicalBlockSize { path: path.to_owned(), logical, storage });
        }
        topology.logical_block_size = logical;

        let alignment = match self.direct {
            true => direct_alignment(&file, &metadata, storage, device.is_some())
                .map_err(|source| OpenError::Direct { path: path.to_owned(), source })?,
            false => Alignment::BYTE,
        };
        let alignment = match device {
            Some(_) => alignment,
            None => as_fine_as(logical, alignment, &file, &metadata),
        };
        if alignment.offset > logical {
            let (path, needed) = (path.to_owned(), alignment.offset);
            return Err(OpenError::DirectBlocks { path, needed, logical });
        }

        let commands = if self.read_only {
            Commands { lifetime: lifetime(device.as_ref()), ..Commands::default() }
        } else {
            commands(&file, &metadata, device.as_ref(), storage)
        };
        let image = RawImage {
            capacity: AtomicU64::new(0),
            trimmed: AtomicU64::new(0),
            topology: consistent(topology),
            commands,
            read_only: self.read_only,
            bounce: self.direct.then(|| BounceIo::new(alignment)),
            device,
            file,
        };
        if image.refresh_capacity().map_err(failed)? == 0 {
            let (path, size) = (path.to_owned(), image.trimmed());
            return Err(OpenError::TooSmall { path, size, block: logical });
        }
        Ok(image)
    }
}

impl RawImage {
    /// Opens and locks the file or block device at `path`: exclusively, or together with other
    /// readers if `read_only`. See [`RawOptions`] for further options.
    ///
    /// # Errors
    /// See [`OpenError`]; each names `path` and what to do.
    pub fn open(path: impl AsRef<Path>, read_only: bool) -> Result<Self, OpenError> {
        RawOptions::new().read_only(read_only).open(path)
    }
}

/// The topology of a file: sectors, in the blocks of its file system.
fn of_file_system(metadata: &Metadata) -> Topology {
    let block = metadata.blksize().try_into().unwrap_or(0);
    let mut topology = Topology { opt_io_size: block, min_io_size: 512, ..Topology::default() };
    if u32::is_power_of_two(block) && (512..=65536).contains(&block) {
        topology.physical_block_size = block;
        topology.min_io_size = block;
    }
    topology
}

/// The topology that the storage reports, without the values that contradict others.
fn consistent(mut topology: Topology) -> Topology {
    let logical = topology.logical_block_size;
    if !topology.physical_block_size.is_power_of_two() || topology.physical_block_size < logical {
        topology.physical_block_size = logical;
    }
    if topology.alignment_offset >= topology.physical_block_size {
        topology.alignment_offset = 0;
    }
    topology.min_io_size = topology.min_io_size.max(logical);
    topology
}

/// The alignment that direct I/O needs.
fn direct_alignment(
    file: &File,
    metadata: &Metadata,
    logical_block_size: u32,
    is_block_device: bool,
) -> io::Result<Alignment> {
    match sys::direct_alignment(file) {
        Ok(Some((0, _) | (_, 0))) => return Err(io::ErrorKind::Unsupported.into()),
        Ok(Some((memory, offset))) if memory.is_power_of_two() && offset.is_power_of_two() => {
            return Ok(Alignment { memory, offset });
        }
        _ => {}
    }
    let all = |bytes| Alignment { memory: bytes, offset: bytes };
    if is_block_device {
        return Ok(all(logical_block_size));
    }
    // A file needs what the disk below its file system needs. If there is no disk, as with a network file
    // system, the alignment is found by trying reads.
    if let Some(bytes) = Device::new(metadata.dev()).logical_block_size() {
        return Ok(all(bytes));
    }
    let mut buffer = AlignedBuffer::new(4096, 4096)?;
    for bytes in [512, 1024, 2048, 4096] {
        let room = buffer.bytes().get_mut(..bytes as usize).unwrap_or_default();
        match file.read_at(room, bytes.into()) {
            Ok(_) => return Ok(Alignment { memory: 4096, offset: bytes }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::Unsupported.into())
}

/// The alignment of a file that may have blocks of `logical` bytes, if the kernel takes these.
///
/// A file system may report a preferred alignment (`STATX_DIOALIGN`) rather than the required one: for a file
/// that shares storage with others XFS reports its own block size, but takes blocks of its disk's size, if
/// necessary through the page cache. So the disk's block size is used if a read of that size succeeds.
fn as_fine_as(logical: u32, alignment: Alignment, file: &File, metadata: &Metadata) -> Alignment {
    if alignment.offset <= logical {
        return alignment;
    }
    let disk = Device::new(metadata.dev()).logical_block_size();
    let read = || {
        let mut buffer = AlignedBuffer::new(logical as usize, alignment.memory as usize)?;
        file.read_at(buffer.bytes(), 0)
    };
    match disk.is_some_and(|bytes| bytes <= logical) && read().is_ok() {
        true => Alignment { offset: logical, ..alignment },
        false => alignment,
    }
}

/// The commands of a writable image.
fn commands(
    file: &File,
    metadata: &Metadata,
    device: Option<&Device>,
    logical_block_size: u32,
) -> Commands {
    let mut commands =
        Commands { write_zeroes: true, lifetime: lifetime(device), ..Commands::default() };
    if let Some(device) = device {
        commands.discard = device.discard_unit(logical_block_size);
        commands.write_zeroes_may_unmap = commands.discard.is_some() && device.zeroes();
        if device::erases_securely(file, &device::kernel_release()) {
            commands.secure_erase = Some(commands.discard.unwrap_or(logical_block_size));
        }
    } else if can_punch(file, metadata.len()) {
        let block = metadata.blksize().try_into().unwrap_or(0);
        let is_block = u32::is_power_of_two(block) && (512..=65536).contains(&block);
        commands.discard = Some(if is_block { block } else { 4096 });
        commands.write_zeroes_may_unmap = true;
    }
    commands
}

fn lifetime(device: Option<&Device>) -> bool {
    device.is_some_and(|device| device.lifetime().is_some())
}

/// Whether the file system can punch holes: tried beyond the file's end, where it has no effect.
fn can_punch(file: &File, size: u64) -> bool {
    const FAR: u64 = 1 << 20;
    let RangeCall::Fallocate(mode) = RangeCall::discard(false) else { return false };
    size.checked_next_multiple_of(FAR)
        .is_some_and(|end| sys::fallocate(file, mode, end, FAR).is_ok())
}
