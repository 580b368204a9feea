//! Which file or device a path leads to.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

/// A file or device, whatever the path: symbolic links, `..` and hard links lead to the same file, and
/// every node of a block device, as `/dev/vg/lv` and `/dev/mapper/vg-lv`, to the same device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A block device, by its number.
    Device(u64),
    /// Anything else, by its file system and its number there.
    File(u64, u64),
}

impl Identity {
    /// `None` if nothing is there.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(match metadata.file_type().is_block_device() {
            true => Self::Device(metadata.rdev()),
            false => Self::File(metadata.dev(), metadata.ino()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_path_of_a_file_leads_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("disk.img"), []).unwrap();
        fs::write(path("other.img"), []).unwrap();
        symlink(path("disk.img"), path("link.img")).unwrap();
        fs::hard_link(path("disk.img"), path("hard.img")).unwrap();
        fs::create_dir(path("below")).unwrap();
        let identity = Identity::of(&path("disk.img"));
        assert!(identity.is_some());
        for alias in ["link.img", "hard.img", "below/../disk.img", "./disk.img"] {
            assert_eq!(Identity::of(&path(alias)), identity, "{alias}");
        }
        assert_ne!(Identity::of(&path("other.img")), identity);
        assert_eq!(Identity::of(&path("missing.img")), None);
    }
}
