use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::parts_error::PartsError;

/// What a descriptor has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Regular,
    BlockDevice,
    /// A regular file or a block device.
    #[cfg(feature = "imago")]
    Either,
    /// A file in sysfs, which counts as regular.
    Attribute,
}

impl FileKind {
    fn is_of(self, metadata: &Metadata) -> bool {
        let kind = metadata.file_type();
        match self {
            Self::Regular | Self::Attribute => kind.is_file(),
            Self::BlockDevice => kind.is_block_device(),
            #[cfg(feature = "imago")]
            Self::Either => kind.is_file() || kind.is_block_device(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Regular => "a regular file",
            Self::BlockDevice => "a block device",
            #[cfg(feature = "imago")]
            Self::Either => "a regular file or a block device",
            Self::Attribute => "an attribute in sysfs",
        }
    }
}

/// The descriptors of an image's files, taken in their order.
pub(super) struct Descriptors {
    left: std::vec::IntoIter<OwnedFd>,
    next: usize,
}

impl Descriptors {
    /// Of which there have to be `expected`.
    pub(super) fn new(fds: Vec<OwnedFd>, expected: usize) -> Result<Self, PartsError> {
        match fds.len() {
            found if found == expected => Ok(Self { left: fds.into_iter(), next: 0 }),
            found => Err(PartsError::Count { expected, found }),
        }
    }

    /// The next one, which has to be of this kind.
    pub(super) fn next(&mut self, kind: FileKind) -> Result<File, PartsError> {
        self.next_if(kind.name(), |metadata| kind.is_of(metadata))
    }

    /// Those that are left, which have to be of the same file or device as `file`.
    pub(super) fn rest_like(mut self, file: &File) -> Result<Vec<File>, PartsError> {
        let index = self.next;
        let examined = |source| PartsError::Examine { index, source };
        let image = identity(&file.metadata().map_err(examined)?);
        let expected = "the image, open once more";
        let left = self.left.len();
        let files = (0..left).map(|_| self.next_if(expected, |file| identity(file) == image));
        files.collect()
    }

    fn next_if(
        &mut self,
        expected: &'static str,
        is_expected: impl Fn(&Metadata) -> bool,
    ) -> Result<File, PartsError> {
        let index = self.next;
        let wrong = PartsError::Kind { index, expected };
        let Some(file) = self.left.next().map(File::from) else { return Err(wrong) };
        self.next = index.saturating_add(1);
        let metadata = file.metadata().map_err(|source| PartsError::Examine { index, source })?;
        if is_expected(&metadata) { Ok(file) } else { Err(wrong) }
    }
}

/// A device by its number, and any other file by that of its file system and its own.
fn identity(metadata: &Metadata) -> (bool, u64, u64) {
    match metadata.file_type().is_block_device() {
        true => (true, metadata.rdev(), 0),
        false => (false, metadata.dev(), metadata.ino()),
    }
}
