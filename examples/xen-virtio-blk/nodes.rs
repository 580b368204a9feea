//! What the toolstack says of a disk beyond what it says of every device.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xen_virtio_backend::node::{NodeError, NodeReader};

/// The nodes under `…/backend/virtio_disk/<domid>/<devid>` that say how the disk is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskNodes {
    /// Where the image is: libxl's `params`.
    #[serde(serialize_with = "serialize_path", deserialize_with = "deserialize_path")]
    pub image: PathBuf,
    /// `mode` is `r`, or `device-type` is `cdrom`.
    pub read_only: bool,
    /// `discard-enable` doesn't forbid the guest to give storage back.
    pub discard: bool,
}

impl DiskNodes {
    /// Reads and checks them.
    ///
    /// # Errors
    /// One is missing or wrong; or xenstore failed.
    pub fn read(node: &NodeReader<'_>) -> Result<Self, NodeError> {
        let mode = node.parse("mode", "\"r\" or \"w\"", |text| match text {
            "r" => Some(true),
            "w" => Some(false),
            _ => None,
        });
        let image = node.parse_bytes("params", "the absolute path of an image", image_path)?;
        Ok(Self {
            image,
            read_only: mode? || is_cdrom(node)?,
            discard: node.flag("discard-enable")?.unwrap_or(true),
        })
    }
}

/// The image that a device names, if it names one.
///
/// # Errors
/// xenstore failed.
pub fn read_image(node: &NodeReader<'_>) -> Result<Option<PathBuf>, NodeError> {
    match node.parse_bytes("params", "the absolute path of an image", image_path) {
        Ok(image) => Ok(Some(image)),
        Err(error @ NodeError::Store(_)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// A file's name is bytes, which need not be UTF-8.
fn image_path(value: &[u8]) -> Option<PathBuf> {
    value.starts_with(b"/").then(|| PathBuf::from(OsStr::from_bytes(value)))
}

/// A path's own serialization refuses what isn't UTF-8.
fn serialize_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_os_str().serialize(serializer)
}

fn deserialize_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    OsString::deserialize(deserializer).map(PathBuf::from)
}

fn is_cdrom(node: &NodeReader<'_>) -> Result<bool, NodeError> {
    let cdrom = node.optional("device-type", "\"disk\" or \"cdrom\"", |text| match text {
        "disk" => Some(false),
        "cdrom" => Some(true),
        _ => None,
    });
    Ok(cdrom?.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_store::{Store, fake::FakeStore};
    use xen_virtio_backend::node::{DeviceId, Kind};

    /// Reads a disk described as libxl 4.17 does, and `more`.
    fn read(more: &[(&str, &str)]) -> Result<DiskNodes, NodeError> {
        let store = FakeStore::new();
        let path = "/local/domain/0/backend/virtio_disk/7/51712";
        for (node, text) in [("params", "/a.img"), ("mode", "w")].iter().chain(more) {
            store.write(None, &format!("{path}/{node}"), text.as_bytes()).unwrap();
        }
        let id = DeviceId { kind: Kind::VirtioDisk, domid: 7, devid: 51712 };
        DiskNodes::read(&NodeReader::new(&store, None, id, path))
    }

    #[test]
    fn nodes_pass_serde_with_an_image_whose_name_is_not_utf8() {
        let image = PathBuf::from(OsStr::from_bytes(b"/disk\xff.img"));
        let nodes = DiskNodes { image, read_only: true, discard: false };
        let bytes = postcard::to_stdvec(&nodes).unwrap();
        assert_eq!(postcard::from_bytes::<DiskNodes>(&bytes), Ok(nodes));
    }

    #[test]
    fn discards_can_be_forbidden_and_a_cdrom_is_read_only() {
        let plain = read(&[]).unwrap();
        assert!(plain.discard && !plain.read_only);
        assert!(!read(&[("discard-enable", "0")]).unwrap().discard);
        assert!(read(&[("discard-enable", "1")]).unwrap().discard);
        assert!(read(&[("device-type", "cdrom")]).unwrap().read_only);
        assert!(!read(&[("device-type", "disk")]).unwrap().read_only);
        for node in [("discard-enable", "yes"), ("device-type", "floppy")] {
            assert!(matches!(read(&[node]), Err(NodeError::Invalid { .. })), "{node:?}");
        }
    }
}
