use std::fmt;
use std::str::FromStr;

/// A name that is none of an [`ImageFormat`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image format {0:?} is not one of raw, qcow2 and vmdk")]
pub struct UnknownFormat(pub String);

/// What a disk image's bytes mean. The operator states it; it is never told from the bytes, which
/// a guest may have written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum ImageFormat {
    /// The disk's bytes.
    #[default]
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// VMware's, as a descriptor of flat extents: `monolithicFlat` and `twoGbMaxExtentFlat`.
    Vmdk,
}

impl ImageFormat {
    /// Whether this build can open images of this format: all but raw ones take the feature `imago`.
    pub const fn is_available(self) -> bool {
        matches!(self, Self::Raw) || cfg!(feature = "imago")
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// From the name it is displayed by, and that `xl` and QEMU know it by.
impl FromStr for ImageFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        [Self::Raw, Self::Qcow2, Self::Vmdk]
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_read_by_the_name_it_is_shown_by() {
        for format in [ImageFormat::Raw, ImageFormat::Qcow2, ImageFormat::Vmdk] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        for name in ["", "RAW", "qcow", "vhd", "qcow2 "] {
            assert_eq!(name.parse::<ImageFormat>(), Err(UnknownFormat(name.to_owned())));
        }
    }
}
