//! A disk as libxl describes it in xenstore, read and checked.

use std::{ffi::OsStr, ops::RangeInclusive, os::unix::ffi::OsStrExt, path::PathBuf};

use xen_ioreq::DomId;
use xen_store::{Store, TxId};

use crate::device_id::DeviceId;

/// Bytes of a virtio-mmio window as libxl lays it out (`VIRTIO_MMIO_DEV_SIZE`, xen/include/public/arch-arm.h).
pub const WINDOW_SIZE: u64 = 0x200;

/// The nodes under `…/backend/virtio_disk/<domid>/<devid>` that decide how a disk is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskNodes {
    /// Where the image is: libxl's `params`.
    pub image: PathBuf,
    /// `mode` is `r`, or `device-type` is `cdrom`.
    pub read_only: bool,
    /// `discard-enable` doesn't forbid the guest to give storage back.
    pub discard: bool,
    /// Guest-physical address of the registers: `base`.
    pub base: u64,
    /// The shared peripheral interrupt: `irq`.
    pub irq: u32,
    /// The guest grants its memory (`grant_usage`), rather than leave it to foreign mapping.
    pub grants: bool,
}

/// Why a device's nodes can't be served.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A node is absent.
    #[error(
        "xenstore node {path} is missing: have the device written by libxl 4.17 or newer, with backendtype=standalone and specification=virtio in xl.cfg"
    )]
    Missing {
        /// The node.
        path: String,
    },
    /// A node says what can't be.
    #[error(
        "xenstore node {path} is {value:?}, but should be {expected}: correct the disk's line in xl.cfg"
    )]
    Absurd {
        /// The node.
        path: String,
        /// What it says, shortened.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// xenstore itself failed.
    #[error(transparent)]
    Store(#[from] xen_store::Error),
}

impl DiskNodes {
    /// Reads and checks the nodes of `id`, whose directory is `path`, in the transaction `tx` if there is one.
    pub fn read(
        store: &dyn Store,
        tx: Option<TxId>,
        id: DeviceId,
        path: &str,
    ) -> Result<Self, NodeError> {
        let nodes = Nodes { store, tx, path };
        nodes.expect("specification", "virtio", "\"virtio\"")?;
        nodes.expect("transport", "mmio", "\"mmio\", the one transport that Xen has on Arm")?;
        let frontend: DomId = nodes.parse("frontend-id", "a domain id", |t| t.parse().ok())?;
        if frontend != id.domid {
            return Err(nodes.absurd(
                "frontend-id",
                &frontend.to_string(),
                "the domain of its own path",
            ));
        }
        Ok(Self {
            image: nodes.parse_bytes("params", "the absolute path of an image", image_path)?,
            read_only: nodes.parse("mode", "\"r\" or \"w\"", |t| match t {
                "r" => Some(true),
                "w" => Some(false),
                _ => None,
            })? || nodes.is_cdrom()?,
            discard: nodes.flag("discard-enable")?.unwrap_or(true),
            base: nodes.base()?,
            irq: nodes.parse("irq", "a shared peripheral interrupt, 32 to 1019", |t| {
                number(t)
                    .and_then(|irq| u32::try_from(irq).ok())
                    .filter(|irq| (32..1020).contains(irq))
            })?,
            grants: nodes.grants()?,
        })
    }

    /// The guest-physical addresses of the registers.
    pub fn window(&self) -> RangeInclusive<u64> {
        window_at(self.base)
    }
}

/// The window of the device whose directory is `path`, whatever else its nodes say.
pub fn read_window(store: &dyn Store, path: &str) -> Result<RangeInclusive<u64>, NodeError> {
    Ok(window_at(Nodes { store, tx: None, path }.base()?))
}

/// The image that the device whose directory is `path` names, if it names one.
pub fn read_image(store: &dyn Store, path: &str) -> Result<Option<PathBuf>, xen_store::Error> {
    let nodes = Nodes { store, tx: None, path };
    match nodes.parse_bytes("params", "the absolute path of an image", image_path) {
        Ok(image) => Ok(Some(image)),
        Err(NodeError::Store(error)) => Err(error),
        Err(NodeError::Absurd { .. } | NodeError::Missing { .. }) => Ok(None),
    }
}

/// A file's name is bytes, which need not be UTF-8.
fn image_path(value: &[u8]) -> Option<PathBuf> {
    value.starts_with(b"/").then(|| PathBuf::from(OsStr::from_bytes(value)))
}

fn window_at(base: u64) -> RangeInclusive<u64> {
    base..=base + (WINDOW_SIZE - 1)
}

/// libxl writes `base` in decimal for disks and in hexadecimal for generic virtio devices.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn optional<T>(value: Result<T, NodeError>) -> Result<Option<T>, NodeError> {
    match value {
        Err(NodeError::Missing { .. }) => Ok(None),
        value => value.map(Some),
    }
}

struct Nodes<'a> {
    store: &'a dyn Store,
    tx: Option<TxId>,
    path: &'a str,
}

impl Nodes<'_> {
    fn parse<T>(
        &self,
        node: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, NodeError> {
        self.parse_bytes(node, expected, |value| parse(&String::from_utf8_lossy(value)))
    }

    fn parse_bytes<T>(
        &self,
        node: &str,
        expected: &'static str,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, NodeError> {
        let path = format!("{}/{node}", self.path);
        let value = match self.store.read(self.tx, &path) {
            Ok(value) => value,
            Err(error) if error.is_not_found() => return Err(NodeError::Missing { path }),
            Err(error) => return Err(error.into()),
        };
        parse(&value).ok_or_else(|| self.absurd(node, &String::from_utf8_lossy(&value), expected))
    }

    fn base(&self) -> Result<u64, NodeError> {
        self.parse("base", "an address, a multiple of 512 below 2^48", |t| {
            number(t).filter(|base| base % WINDOW_SIZE == 0 && *base < 1 << 48)
        })
    }

    /// libxl before 4.19 writes no `grant_usage`: a guest grants to any backend there but dom0's.
    fn grants(&self) -> Result<bool, NodeError> {
        Ok(self.flag("grant_usage")?.unwrap_or(!self.path.starts_with("/local/domain/0/")))
    }

    fn is_cdrom(&self) -> Result<bool, NodeError> {
        let cdrom = self.parse("device-type", "\"disk\" or \"cdrom\"", |t| match t {
            "disk" => Some(false),
            "cdrom" => Some(true),
            _ => None,
        });
        Ok(optional(cdrom)?.unwrap_or(false))
    }

    /// A node that not every libxl writes.
    fn flag(&self, node: &str) -> Result<Option<bool>, NodeError> {
        optional(self.parse(node, "\"0\" or \"1\"", |t| match t {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }))
    }

    fn expect(&self, node: &str, value: &str, expected: &'static str) -> Result<(), NodeError> {
        self.parse(node, expected, |t| (t == value).then_some(()))
    }

    fn absurd(&self, node: &str, value: &str, expected: &'static str) -> NodeError {
        // The value may be as long as xenstore lets it be; an error message is no place for that.
        let value = value.chars().take(64).collect();
        NodeError::Absurd { path: format!("{}/{node}", self.path), value, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::{DiskNodes, NodeError};
    use crate::device_id::{DeviceId, Kind};
    use xen_store::{Store, fake::FakeStore};

    /// Reads a disk of a backend in domain `backend`, described as libxl 4.17 does, and `more`.
    fn read(backend: u16, more: &[(&str, &str)]) -> Result<DiskNodes, NodeError> {
        let store = FakeStore::new();
        let path = format!("/local/domain/{backend}/backend/virtio_disk/7/51712");
        let nodes = [
            ("specification", "virtio"),
            ("transport", "mmio"),
            ("frontend-id", "7"),
            ("params", "/a.img"),
            ("mode", "w"),
            ("base", "33554432"),
            ("irq", "33"),
        ];
        for (node, text) in nodes.iter().chain(more) {
            store.write(None, &format!("{path}/{node}"), text.as_bytes()).unwrap();
        }
        let id = DeviceId { kind: Kind::VirtioDisk, domid: 7, devid: 51712 };
        DiskNodes::read(&store, None, id, &path)
    }

    fn grants(backend: u16, grant_usage: Option<&str>) -> Result<bool, NodeError> {
        let node = grant_usage.map(|text| ("grant_usage", text));
        read(backend, node.as_slice()).map(|nodes| nodes.grants)
    }

    #[test]
    fn before_libxl_4_19_a_guest_grants_to_every_backend_but_that_of_dom0() {
        assert!(!grants(0, None).unwrap());
        assert!(grants(5, None).unwrap());
        // What is written decides.
        assert!(grants(0, Some("1")).unwrap() && !grants(5, Some("0")).unwrap());
        assert!(matches!(grants(0, Some("2")), Err(NodeError::Absurd { .. })));
    }

    #[test]
    fn discards_can_be_forbidden_and_a_cdrom_is_read_only() {
        let plain = read(0, &[]).unwrap();
        assert!(plain.discard && !plain.read_only);
        assert!(!read(0, &[("discard-enable", "0")]).unwrap().discard);
        assert!(read(0, &[("discard-enable", "1")]).unwrap().discard);
        assert!(read(0, &[("device-type", "cdrom")]).unwrap().read_only);
        assert!(!read(0, &[("device-type", "disk")]).unwrap().read_only);
        for node in [("discard-enable", "yes"), ("device-type", "floppy")] {
            assert!(matches!(read(0, &[node]), Err(NodeError::Absurd { .. })), "{node:?}");
        }
    }
}
