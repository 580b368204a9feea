//! A device as the toolstack describes it.

use std::{collections::BTreeMap, ffi::OsStr, os::unix::ffi::OsStrExt};

use xen_ioreq::DomId;

use crate::node::{DeviceId, DeviceType, Kind, Sharing};

/// `GUEST_VIRTIO_MMIO_BASE` (xen/include/public/arch-arm.h): where libxl puts a guest's first virtio-mmio device.
const FIRST_BASE: u64 = 0x0200_0000;
/// `GUEST_VIRTIO_MMIO_SPI_FIRST`: its interrupt.
const FIRST_IRQ: u32 = 33;
/// libxl's number of `xvda`, and how much more that of the next disk is.
const XVDA: u32 = 51712;
const XVD_STEP: u32 = 16;

/// A device as libxl describes it in xenstore, to be [added](super::FakeToolstack::add_device) to a guest.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    id: DeviceId,
    base: u64,
    irq: u32,
    sharing: Sharing,
    nodes: BTreeMap<String, Vec<u8>>,
}

impl DeviceConfig {
    /// The guest's `nth` device, from 0, as a generic one of this type:
    /// `virtio = [ "type=virtio,device…,transport=mmio" ]` in `xl.cfg`. Window and interrupt are those that libxl gives
    /// the `nth`; the guest's memory is mapped.
    pub fn generic(domid: DomId, nth: u32, device_type: DeviceType) -> Self {
        let id = DeviceId { domid, kind: Kind::Virtio, devid: nth };
        Self::new(id, nth).with("type", format!("virtio,device{:x}", device_type.0))
    }

    /// The guest's `nth` device, from 0, as a disk of this image (the node `params`):
    /// `disk = [ "…,specification=virtio" ]` in `xl.cfg`.
    ///
    /// # Panics
    /// There are at most 26 disks.
    pub fn disk(domid: DomId, nth: u32, image: impl AsRef<OsStr>) -> Self {
        let letter = u8::try_from(nth).ok().filter(|nth| *nth < 26).map(|nth| b'a' + nth);
        let letter = char::from(letter.expect("xvda to xvdz"));
        let id = DeviceId { domid, kind: Kind::VirtioDisk, devid: XVDA + XVD_STEP * nth };
        let device = Self::new(id, nth).with("params", image.as_ref().as_bytes());
        let nodes = [
            ("removable", "0"),
            ("bootable", "1"),
            ("dev", &format!("xvd{letter}")),
            ("type", "standalone"),
            ("mode", "w"),
            ("device-type", "disk"),
            ("discard-enable", "1"),
            ("specification", "virtio"),
        ];
        nodes.into_iter().fold(device, |device, (node, value)| device.with(node, value))
    }

    /// The nodes that every device has.
    fn new(id: DeviceId, nth: u32) -> Self {
        let DeviceId { domid, kind, devid } = id;
        let frontend = format!("/local/domain/{domid}/device/{}/{devid}", kind.dir());
        let nodes = BTreeMap::new();
        Self { id, base: 0, irq: 0, sharing: Sharing::Foreign, nodes }
            .with("frontend", frontend)
            .with("frontend-id", domid.to_string())
            .with("online", "1")
            .with("state", "1")
            .with("transport", "mmio")
            .at(FIRST_BASE + u64::from(nth) * virtio_mmio_dev::WINDOW_SIZE, FIRST_IRQ + nth)
            .sharing(Sharing::Foreign)
    }

    /// With another window and interrupt. libxl writes the window's address in hexadecimal for a generic device, and in
    /// decimal for a disk.
    #[must_use]
    pub fn at(mut self, base: u64, irq: u32) -> Self {
        (self.base, self.irq) = (base, irq);
        let base = match self.id.kind {
            Kind::Virtio => format!("{base:#x}"),
            Kind::VirtioDisk => base.to_string(),
        };
        self.with("base", base).with("irq", irq.to_string())
    }

    /// With another `grant_usage`.
    #[must_use]
    pub fn sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self.with("grant_usage", if sharing == Sharing::Grant { "1" } else { "0" })
    }

    /// With this value of one node, whatever the device really is: window, interrupt and sharing stay where the guest
    /// has them.
    #[must_use]
    pub fn with(mut self, node: &str, value: impl AsRef<[u8]>) -> Self {
        self.nodes.insert(node.to_owned(), value.as_ref().to_owned());
        self
    }

    /// Without one node.
    #[must_use]
    pub fn without(mut self, node: &str) -> Self {
        self.nodes.remove(node);
        self
    }

    /// Which device of which guest.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// The guest.
    pub fn domid(&self) -> DomId {
        self.id.domid
    }

    /// Where the guest has its window.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The interrupt that the guest has for it.
    pub fn irq(&self) -> u32 {
        self.irq
    }

    /// How the guest shares memory with it.
    pub fn shares_by(&self) -> Sharing {
        self.sharing
    }

    /// The nodes that are written when it is added, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.nodes.iter().map(|(node, value)| (node.as_str(), value.as_slice()))
    }

    /// The value of one of them.
    pub fn node(&self, node: &str) -> Option<&[u8]> {
        self.nodes.get(node).map(Vec::as_slice)
    }

    /// Its directory in xenstore, for a backend in dom0.
    pub fn path(&self) -> String {
        self.id.path("/local/domain/0/backend")
    }
}
