use std::os::fd::OwnedFd;
use std::path::Path;

use super::format::ImageFormat;
#[cfg(feature = "imago")]
use super::imago::{ChainFacts, ChainFiles};
use super::parts_error::PartsError;
use super::raw_files::{RawFacts, RawFiles};

/// The open and locked files of a disk image, and what the host says of them.
///
/// An image is opened in two steps. The first, [`RawOptions::open_files`](crate::RawOptions::open_files) or
/// [`ImageFormat::open_files`], takes paths, and reads /proc and /sys. The second, [`image`](Self::image) or
/// [`RawImage::from_files`](crate::RawImage::from_files), uses nothing but these files. So a process that may open files can pass an image
/// to one that may not, such as the process that serves a guest: the [facts](ImageFacts), with the feature
/// `serde`, as bytes, and the descriptors over a Unix socket (`SCM_RIGHTS`, unix(7)).
///
/// Of an image that isn't raw the first step reads the headers, for the names and formats of its backing and
/// data files, and of a VMDK image the descriptor, but no tables.
///
/// ```no_run
/// use virtio_blk_dev::{ImageFiles, RawImage, RawOptions};
///
/// // In the process that may open files:
/// let files = RawOptions::new().spares(1).open_files("disk.img")?;
/// let (facts, descriptors) = files.into_parts();
/// // In the other one:
/// let files = ImageFiles::from_parts(facts, descriptors)?;
/// let image = RawImage::from_files(files)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ImageFiles(pub(super) FilesKind);

#[derive(Debug)]
pub(super) enum FilesKind {
    Raw(RawFiles),
    #[cfg(feature = "imago")]
    Chain(ChainFiles),
}

/// What the host says of [`ImageFiles`]: all of them but the descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ImageFacts(FactsKind);

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum FactsKind {
    Raw(RawFacts),
    #[cfg(feature = "imago")]
    Chain(ChainFacts),
}

impl ImageFiles {
    /// The image's format.
    pub fn format(&self) -> ImageFormat {
        match &self.0 {
            FilesKind::Raw(_) => ImageFormat::Raw,
            #[cfg(feature = "imago")]
            FilesKind::Chain(files) => files.format(),
        }
    }

    /// The image's path. Nothing is opened by it any more.
    pub fn path(&self) -> &Path {
        match &self.0 {
            FilesKind::Raw(files) => &files.facts.path,
            #[cfg(feature = "imago")]
            FilesKind::Chain(files) => files.path(),
        }
    }

    /// Splits them, to be passed to another process. The locks go with the descriptors: they are held as long
    /// as any process has them.
    pub fn into_parts(self) -> (ImageFacts, Vec<OwnedFd>) {
        match self.0 {
            FilesKind::Raw(files) => {
                let (facts, fds) = files.into_parts();
                (ImageFacts(FactsKind::Raw(facts)), fds)
            }
            #[cfg(feature = "imago")]
            FilesKind::Chain(files) => {
                let (facts, fds) = files.into_parts();
                (ImageFacts(FactsKind::Chain(facts)), fds)
            }
        }
    }

    /// Joins what [`into_parts`](Self::into_parts) gave: `fds`, or duplicates of them, in the same order.
    ///
    /// # Errors
    /// [`PartsError`] if they are fewer, more, or of other kinds.
    pub fn from_parts(facts: ImageFacts, fds: Vec<OwnedFd>) -> Result<Self, PartsError> {
        Ok(Self(match facts.0 {
            FactsKind::Raw(facts) => FilesKind::Raw(RawFiles::from_parts(facts, fds)?),
            #[cfg(feature = "imago")]
            FactsKind::Chain(facts) => FilesKind::Chain(ChainFiles::from_parts(facts, fds)?),
        }))
    }
}
