//! Opening: first the files, then the image.

use std::path::Path;
use std::sync::Arc;

use super::Image;
use super::error::OpenError;
use super::files::{FilesKind, ImageFiles};
use super::format::ImageFormat;
#[cfg(feature = "imago")]
use super::imago::{ChainFiles, ImagoImage};
use super::options::RawOptions;
use super::raw::RawImage;
use super::raw_files::RawFiles;

impl ImageFormat {
    /// Opens and locks the image at `path`, which has this format.
    ///
    /// # Errors
    /// See [`OpenError`]; each names `path` and what to do.
    pub fn open(self, path: &Path, read_only: bool) -> Result<Arc<dyn Image>, OpenError> {
        self.open_files(path, read_only)?.image()
    }

    /// The part of [`open`](Self::open) that needs privileges and paths. [`RawOptions::open_files`] has more
    /// options for raw images.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_files(self, path: &Path, read_only: bool) -> Result<ImageFiles, OpenError> {
        match self {
            Self::Raw => RawOptions::new().read_only(read_only).open_files(path),
            #[cfg(feature = "imago")]
            Self::Qcow2 | Self::Vmdk => {
                let files = ChainFiles::open(path, self, read_only)?;
                Ok(ImageFiles(FilesKind::Chain(files)))
            }
            #[cfg(not(feature = "imago"))]
            Self::Qcow2 | Self::Vmdk => Err(OpenError::FormatMissing {
                path: path.to_owned(),
                format: self,
                advice: "build with the feature `imago`, or convert it with `qemu-img convert`",
            }),
        }
    }
}

impl RawOptions {
    /// Opens and locks the file or block device at `path`: exclusively, or together with other
    /// readers. A block device that the host itself uses, for example as a mounted file system, can't be
    /// opened for writing.
    ///
    /// # Errors
    /// See [`OpenError`]; each names `path` and what to do.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<RawImage, OpenError> {
        RawImage::from_files(self.open_files(path)?)
    }

    /// The part of [`open`](Self::open) that needs privileges and paths.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_files(&self, path: impl AsRef<Path>) -> Result<ImageFiles, OpenError> {
        let files = RawFiles::open(path.as_ref(), self)?;
        Ok(ImageFiles(FilesKind::Raw(files)))
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

    /// The image of these files, which are open and locked. Needs no privileges, paths or file systems.
    ///
    /// # Errors
    /// [`OpenError::FormatMissing`] if the files are of another format, [`OpenError::TooSmall`], and
    /// [`OpenError::Size`].
    pub fn from_files(files: ImageFiles) -> Result<Self, OpenError> {
        match files.0 {
            FilesKind::Raw(files) => Self::new(files),
            #[cfg(feature = "imago")]
            FilesKind::Chain(files) => {
                let (path, format) = (files.path().to_owned(), files.format());
                let advice = "open it as an `ImagoImage`";
                Err(OpenError::FormatMissing { path, format, advice })
            }
        }
    }
}

#[cfg(feature = "imago")]
impl ImagoImage {
    /// Opens and locks the image at `path`, and its backing and data files.
    ///
    /// # Errors
    /// See [`OpenError`]; each names `path` and what to do.
    pub fn open(
        path: impl AsRef<Path>,
        format: ImageFormat,
        read_only: bool,
    ) -> Result<Self, OpenError> {
        Self::from_files(format.open_files(path.as_ref(), read_only)?)
    }

    /// The image of these files, which are open and locked. Needs no privileges, paths or file systems. An
    /// image that is written is checked completely.
    ///
    /// # Errors
    /// [`OpenError::FormatMissing`] if the files are of a raw image; [`OpenError::Format`] and
    /// [`OpenError::Layer`], also if the image names a file that isn't among these; [`OpenError::TooSmall`].
    pub fn from_files(files: ImageFiles) -> Result<Self, OpenError> {
        match files.0 {
            FilesKind::Chain(files) => Self::new(files),
            FilesKind::Raw(files) => {
                let (path, format) = (files.facts.path, ImageFormat::Raw);
                let advice = "open it as a `RawImage`";
                Err(OpenError::FormatMissing { path, format, advice })
            }
        }
    }
}

impl ImageFiles {
    /// Makes the image.
    ///
    /// # Errors
    /// See [`OpenError`]; each names the path and what to do.
    pub fn image(self) -> Result<Arc<dyn Image>, OpenError> {
        match self.0 {
            FilesKind::Raw(files) => Ok(Arc::new(RawImage::new(files)?)),
            #[cfg(feature = "imago")]
            FilesKind::Chain(files) => Ok(Arc::new(ImagoImage::new(files)?)),
        }
    }
}
