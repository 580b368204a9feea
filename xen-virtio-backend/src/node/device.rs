//! What every virtio-mmio device has in xenstore.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use virtio_mmio_dev::WINDOW_SIZE;
use xen_ioreq::DomId;

use super::{DeviceId, Kind, NodeError, NodeReader, Sharing};

/// The nodes under `…/backend/<kind>/<domid>/<devid>` that every virtio-mmio device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceNode {
    /// Which device.
    pub id: DeviceId,
    /// Guest-physical address of the registers: `base`.
    pub base: u64,
    /// The shared peripheral interrupt: `irq`.
    pub irq: u32,
    /// How the guest shares its memory with it: `grant_usage`.
    pub sharing: Sharing,
}

impl DeviceNode {
    /// A device with these values.
    pub fn new(id: DeviceId, base: u64, irq: u32, sharing: Sharing) -> Self {
        Self { id, base, irq, sharing }
    }

    /// Reads and checks the nodes.
    ///
    /// # Errors
    /// One is missing or wrong; or xenstore failed.
    pub fn read(node: &NodeReader<'_>) -> Result<Self, NodeError> {
        let id = node.id();
        if id.kind == Kind::VirtioDisk {
            node.expect("specification", "virtio", "\"virtio\"")?;
        }
        node.expect("transport", "mmio", "\"mmio\", the one transport that Xen has on Arm")?;
        let frontend: DomId = node.parse("frontend-id", "a domain id", |t| t.parse().ok())?;
        if frontend != id.domid {
            let expected = "the domain of its own path";
            return Err(node.invalid("frontend-id", &frontend.to_string(), expected));
        }
        let irq = node.parse("irq", "a shared peripheral interrupt, 32 to 1019", |t| {
            let irq = number(t).and_then(|irq| u32::try_from(irq).ok());
            irq.filter(|irq| (32..1020).contains(irq))
        })?;
        let sharing = read_sharing(node)?;
        Ok(Self { id, base: base(node)?, irq, sharing })
    }

    /// The guest-physical addresses of the registers.
    pub fn window(&self) -> RangeInclusive<u64> {
        window_at(self.base)
    }
}

/// How the guest shares its memory with a device.
fn read_sharing(node: &NodeReader<'_>) -> Result<Sharing, NodeError> {
    // libxl before 4.19 writes no `grant_usage`: a guest grants to any backend there but dom0's.
    let grants = node.flag("grant_usage")?.unwrap_or(!node.is_of_dom0());
    Ok(if grants { Sharing::Grant } else { Sharing::Foreign })
}

/// The window of a device, whatever its other nodes say.
pub(crate) fn read_window(node: &NodeReader<'_>) -> Result<RangeInclusive<u64>, NodeError> {
    base(node).map(window_at)
}

fn window_at(base: u64) -> RangeInclusive<u64> {
    base..=base + (WINDOW_SIZE - 1)
}

fn base(node: &NodeReader<'_>) -> Result<u64, NodeError> {
    node.parse("base", "an address, a multiple of 512 below 2^48", |t| {
        number(t).filter(|base| base % WINDOW_SIZE == 0 && *base < 1 << 48)
    })
}

/// libxl writes `base` in decimal for disks and in hexadecimal for generic virtio devices.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_store::{Store, fake::FakeStore};

    /// Reads a disk of a backend in domain `backend`, described as libxl 4.17 does, and `more`.
    fn grants(backend: u16, grant_usage: Option<&str>) -> Result<bool, NodeError> {
        let store = FakeStore::new();
        let path = format!("/local/domain/{backend}/backend/virtio_disk/7/51712");
        let nodes = [
            ("specification", "virtio"),
            ("transport", "mmio"),
            ("frontend-id", "7"),
            ("base", "33554432"),
            ("irq", "33"),
        ];
        let usage = grant_usage.map(|text| ("grant_usage", text));
        for (node, text) in nodes.iter().chain(&usage) {
            store.write(None, &format!("{path}/{node}"), text.as_bytes()).unwrap();
        }
        let id = DeviceId { kind: Kind::VirtioDisk, domid: 7, devid: 51712 };
        let node = DeviceNode::read(&NodeReader::new(&store, None, id, &path))?;
        Ok(node.sharing == Sharing::Grant)
    }

    #[test]
    fn before_libxl_4_19_a_guest_grants_to_every_backend_but_that_of_dom0() {
        assert!(!grants(0, None).unwrap());
        assert!(grants(5, None).unwrap());
        // What is written decides.
        assert!(grants(0, Some("1")).unwrap() && !grants(5, Some("0")).unwrap());
        assert!(matches!(grants(0, Some("2")), Err(NodeError::Invalid { .. })));
    }
}
