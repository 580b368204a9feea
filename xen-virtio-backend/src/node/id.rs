//! Which device of which guest: its place below the backend's directory.

use std::fmt;

use serde::{Deserialize, Serialize};
use xen_ioreq::DomId;

/// The two directories under `backend/` that libxl fills for virtio devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// `disk = [ "…,specification=virtio" ]`: a block device.
    VirtioDisk,
    /// `virtio = [ "type=…" ]`: a device of the type that the node `type` names. A disk among them carries no
    /// image path.
    Virtio,
}

impl Kind {
    /// Every kind that is watched.
    pub const ALL: [Self; 2] = [Self::VirtioDisk, Self::Virtio];

    /// The directory's name.
    pub fn dir(self) -> &'static str {
        match self {
            Self::VirtioDisk => "virtio_disk",
            Self::Virtio => "virtio",
        }
    }
}

/// A device's type (virtio 1.2 §5): 2 is a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceType(pub u32);

impl DeviceType {
    /// A block device (§5.2).
    pub const BLOCK: Self = Self(2);

    /// Of the node `type` of a generic device: libxl's `virtio,device<ID>`, in hexadecimal as Linux's
    /// device-tree binding virtio,device.yaml has it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let id = text.strip_prefix("virtio,device")?;
        u32::from_str_radix(id, 16).ok().map(Self)
    }
}

/// One device of one guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceId {
    /// The guest.
    pub domid: DomId,
    /// Which directory it stands in.
    pub kind: Kind,
    /// libxl's device number: 51712 for xvda.
    pub devid: u32,
}

impl DeviceId {
    /// The device that `path`, somewhere at or below a device's directory, belongs to.
    /// `backend` is the directory that holds the kinds.
    pub fn from_path(backend: &str, path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix(backend)?.strip_prefix('/')?.split('/');
        let dir = parts.next()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.dir() == dir)?;
        Some(Self { kind, domid: parts.next()?.parse().ok()?, devid: parts.next()?.parse().ok()? })
    }

    /// The device's directory.
    pub fn path(&self, backend: &str) -> String {
        format!("{backend}/{}/{}/{}", self.kind.dir(), self.domid, self.devid)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.dir(), self.domid, self.devid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: &str = "/local/domain/0/backend";

    #[test]
    fn a_path_at_or_below_a_device_names_it() {
        let id = DeviceId { kind: Kind::VirtioDisk, domid: 3, devid: 51712 };
        assert_eq!(DeviceId::from_path(BACKEND, &id.path(BACKEND)), Some(id));
        assert_eq!(DeviceId::from_path(BACKEND, &format!("{}/state", id.path(BACKEND))), Some(id));
    }

    #[test]
    fn a_path_above_a_device_or_elsewhere_names_none() {
        for path in [
            "/local/domain/0/backend",
            "/local/domain/0/backend/virtio_disk",
            "/local/domain/0/backend/virtio_disk/3",
            "/local/domain/0/backend/vbd/3/51712",
            "/local/domain/0/backend/virtio_disk/x/51712",
            "/local/domain/0/backend/virtio_disk/99999/51712",
            "/local/domain/0/backendvirtio_disk/3/51712",
            "@releaseDomain",
        ] {
            assert_eq!(DeviceId::from_path(BACKEND, path), None, "{path}");
        }
    }
}
