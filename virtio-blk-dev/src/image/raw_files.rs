use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::alignment::Alignment;
use super::descriptors::{Descriptors, FileKind};
use super::device::{self, Device};
use super::error::OpenError;
use super::flusher::reopen;
use super::locked_file::open_locked;
use super::options::RawOptions;
use super::parts_error::PartsError;
use super::range_call::RangeCall;
use super::wear::Wear;
use super::{Commands, Topology, sys};
use crate::aligned_buffer::AlignedBuffer;

/// The open files of a raw image.
#[derive(Debug)]
pub(super) struct RawFiles {
    pub(super) facts: RawFacts,
    /// Locked.
    pub(super) file: File,
    /// `Some` with [`Commands::lifetime`].
    pub(super) wear: Option<Wear>,
    /// As many as [`RawFacts::spares`].
    pub(super) spares: Vec<File>,
}

/// What the host says of a raw image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct RawFacts {
    #[cfg_attr(feature = "serde", serde(with = "super::path_bytes"))]
    pub(super) path: PathBuf,
    pub(super) read_only: bool,
    pub(super) is_block_device: bool,
    pub(super) topology: Topology,
    pub(super) commands: Commands,
    /// For direct I/O; `None` without.
    pub(super) alignment: Option<Alignment>,
    /// How many times more the image is open.
    pub(super) spares: u16,
}

impl RawFiles {
    /// Opens and locks the image at `path`, and asks the host what it can do.
    pub(super) fn open(path: &Path, options: &RawOptions) -> Result<Self, OpenError> {
        let RawOptions { read_only, direct, logical_block_size, spares } = *options;
        let (file, metadata) = open_locked(path, read_only, direct)?;
        let failed = |source| OpenError::Size { path: path.to_owned(), source };
        let device = metadata.file_type().is_block_device().then(|| Device::of(&metadata));

        let mut topology = match device {
            Some(_) => device::topology(&file).map_err(failed)?,
            None => of_file_system(&metadata),
        };
        let storage = topology.logical_block_size;
        let logical = logical_block_size.unwrap_or(storage);
        if !logical.is_power_of_two() || !(storage..=65536).contains(&logical) {
            return Err(OpenError::LogicalBlockSize { path: path.to_owned(), logical, storage });
        }
        topology.logical_block_size = logical;

        let alignment = match direct {
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

        let wear = device.as_ref().and_then(Device::wear);
        let mut commands = match read_only {
            true => Commands::default(),
            false => commands(&file, &metadata, device.as_ref(), storage),
        };
        commands.lifetime = wear.is_some();
        let spares = if read_only { 0 } else { spares };
        let facts = RawFacts {
            path: path.to_owned(),
            read_only,
            is_block_device: device.is_some(),
            topology: consistent(topology),
            commands,
            alignment: direct.then_some(alignment),
            spares,
        };
        let spares = (0..spares).map(|_| reopen(&file, direct)).collect::<Result<_, _>>();
        let spares = spares.map_err(|source| OpenError::Spare { path: path.to_owned(), source })?;
        Ok(Self { facts, file, wear, spares })
    }

    pub(super) fn into_parts(self) -> (RawFacts, Vec<OwnedFd>) {
        let wear = self.wear.map(Wear::into_files).into_iter().flatten();
        let files = [self.file].into_iter().chain(wear).chain(self.spares);
        (self.facts, files.map(OwnedFd::from).collect())
    }

    pub(super) fn from_parts(facts: RawFacts, fds: Vec<OwnedFd>) -> Result<Self, PartsError> {
        let mut fds = Descriptors::new(fds, facts.descriptors())?;
        let file = fds.next(facts.kind())?;
        let wear = match facts.commands.lifetime {
            true => Some(Wear::new(fds.next(FileKind::Attribute)?, fds.next(FileKind::Attribute)?)),
            false => None,
        };
        let spares = fds.rest_like(&file)?;
        Ok(Self { facts, file, wear, spares })
    }
}

impl RawFacts {
    fn descriptors(&self) -> usize {
        let wear = if self.commands.lifetime { 2 } else { 0 };
        usize::from(self.spares).saturating_add(1).saturating_add(wear)
    }

    fn kind(&self) -> FileKind {
        if self.is_block_device { FileKind::BlockDevice } else { FileKind::Regular }
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

/// The commands of a writable image, but for its lifetime.
fn commands(
    file: &File,
    metadata: &Metadata,
    device: Option<&Device>,
    logical_block_size: u32,
) -> Commands {
    let mut commands = Commands { write_zeroes: true, ..Commands::default() };
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

/// Whether the file system can punch holes: tried beyond the file's end, where it has no effect.
fn can_punch(file: &File, size: u64) -> bool {
    const FAR: u64 = 1 << 20;
    let RangeCall::Fallocate(mode) = RangeCall::discard(false) else { return false };
    size.checked_next_multiple_of(FAR)
        .is_some_and(|end| sys::fallocate(file, mode, end, FAR).is_ok())
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::super::{Image, Lifetime, RawImage};
    use super::*;

    /// As a file, since no eMMC is at hand.
    #[test]
    fn wear_is_read_anew_from_descriptors_that_came_with_the_image() {
        let file = |content: &str| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(content.as_bytes(), 0).unwrap();
            file
        };
        let (image, pre_eol_info, life_time) =
            (file(&"-".repeat(512)), file("0x01\n"), file("0x02 0x0b\n"));
        let facts = RawFacts {
            path: "disk.img".into(),
            read_only: true,
            is_block_device: false,
            topology: Topology::default(),
            commands: Commands { lifetime: true, ..Commands::default() },
            alignment: None,
            spares: 0,
        };
        let fds = vec![image.into(), pre_eol_info.try_clone().unwrap().into(), life_time.into()];
        let image = RawImage::new(RawFiles::from_parts(facts, fds).unwrap()).unwrap();
        let wear = |pre_eol_info| Lifetime {
            pre_eol_info,
            device_lifetime_est_typ_a: 2,
            device_lifetime_est_typ_b: 11,
        };
        assert_eq!(image.lifetime().unwrap(), wear(1));
        pre_eol_info.write_all_at(b"0x02\n", 0).unwrap();
        assert_eq!(image.lifetime().unwrap(), wear(2));
    }
}
