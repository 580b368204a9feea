use std::path::Path;
use std::sync::Arc;

use super::Image;
use super::error::OpenError;
use super::format::ImageFormat;
#[cfg(feature = "imago")]
use super::imago::ImagoImage;
use super::raw::RawImage;

impl ImageFormat {
    /// Opens and locks the image at `path`, which has this format.
    ///
    /// # Errors
    /// See [`OpenError`]; each names `path` and what to do.
    pub fn open(self, path: &Path, read_only: bool) -> Result<Arc<dyn Image>, OpenError> {
        match self {
            Self::Raw => Ok(Arc::new(RawImage::open(path, read_only)?)),
            #[cfg(feature = "imago")]
            Self::Qcow2 | Self::Vmdk => Ok(Arc::new(ImagoImage::open(path, self, read_only)?)),
            #[cfg(not(feature = "imago"))]
            Self::Qcow2 | Self::Vmdk => Err(OpenError::FormatMissing {
                path: path.to_owned(),
                format: self,
                advice: "build with the feature `imago`, or convert it with `qemu-img convert`",
            }),
        }
    }
}
