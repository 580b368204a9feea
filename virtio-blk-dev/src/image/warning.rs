use std::fmt;

/// What an operator should know of an image that is served all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageWarning {
    /// The image's end is no whole block, and the guest doesn't see it.
    HiddenTail {
        /// Bytes that the guest doesn't see.
        bytes: u64,
    },
    /// The image is served as raw, and begins as an image of another format does. The guest may have
    /// written that, so it is no error.
    OtherFormat {
        /// The format's name.
        found: &'static str,
    },
}

impl fmt::Display for ImageWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HiddenTail { bytes } => write!(
                f,
                "the image's size is not a multiple of its block size: the guest doesn't see its \
                 last {bytes} bytes; give it a whole number of blocks, as with `truncate -s`"
            ),
            Self::OtherFormat { found } => write!(
                f,
                "the image is served as raw, but begins like {found}: unless the guest wrote that \
                 itself, it sees and overwrites the container instead of the disk in it"
            ),
        }
    }
}

/// Bytes of an image's beginning that tell its format.
pub(super) const HEAD: usize = 4096;

/// What formats begin with, and at which byte: QEMU's, VMware's, Microsoft's, VirtualBox's and
/// Parallels' images, and encrypted volumes.
const MAGIC: [(usize, &[u8], &str); 13] = [
    (0, b"QFI\xfb\0\0\0\x01", "a qcow image"),
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"QED\0", "a QED image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"COWD", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "a VMDK image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a VHD image"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"SKUL\xba\xbe", "a LUKS volume"),
];

/// The format that an image with this beginning may have, if it isn't raw.
pub(super) fn other_format(head: &[u8]) -> Option<&'static str> {
    let begins = |(place, magic, _): &&(usize, &[u8], _)| {
        head.get(*place..).is_some_and(|head| head.starts_with(magic))
    };
    MAGIC.iter().find(begins).map(|(.., name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_what_it_begins_with() {
        for (place, magic, name) in MAGIC {
            let mut head = [0; HEAD];
            head[place..place + magic.len()].copy_from_slice(magic);
            assert_eq!(other_format(&head), Some(name));
            assert_ne!(other_format(&head[..place + magic.len() - 1]), Some(name));
        }
        assert_eq!(other_format(&[0; HEAD]), None);
        assert_eq!(other_format(b"\xeb\x63\x90"), None, "a boot sector");
        assert_eq!(other_format(b""), None);
    }
}
