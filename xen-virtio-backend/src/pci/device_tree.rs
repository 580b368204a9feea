//! What a guest is told of its PCI bus: a partial device tree for xl.cfg's `device_tree`.

use std::fmt;

use vm_fdt::{FdtWriter, FdtWriterResult};
use xen_ioreq::DomId;

use super::layout::{ECAM, FRAME, LAST_MMIO_SPI, LAST_SPI, MEMORY, len};

/// The frame's, by which the bridge names it. Xen's own are 65000 (`GUEST_PHANDLE_GIC`) and 65001.
const FRAME_PHANDLE: u32 = 1;

/// That of the node `xen_iommu`, which libxl writes into the tree of a guest whose virtio devices use grants
/// (`GUEST_PHANDLE_IOMMU` of `tools/libs/light/libxl_arm.c`).
const GRANTS_PHANDLE: u32 = 65001;

/// The GIC's number of the first shared peripheral interrupt, from which xl counts.
const FIRST_GIC_SPI: u32 = 32;

/// 32-bit memory, not prefetchable (IEEE 1275 PCI bus binding, 2.2.1.1 "phys.hi").
const MEMORY_32: u32 = 0x0200_0000;

/// The bus of one guest as its device tree has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTree {
    first_spi: u32,
    spis: u32,
    /// The numbers of the devices that are granted to, and the domain that they are in.
    grants: Option<(Vec<u8>, DomId)>,
}

/// Interrupts that a bus can't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{spis} interrupts from {first} on: a guest's bus can have those from {} to {LAST_SPI}, one at least",
    LAST_MMIO_SPI + 1
)]
pub struct NoSpis {
    /// The first of them.
    first: u32,
    /// How many.
    spis: u32,
}

impl DeviceTree {
    /// The first interrupt where nothing else is said. Those before it are libxl's, and low ones are most likely to be a
    /// physical device's that is passed through.
    pub const FIRST_SPI: u32 = 96;
    /// How many interrupts where nothing else is said: each queue of a device has one, and each device one more.
    pub const SPIS: u32 = 64;

    /// A bus whose devices share the interrupts from `first_spi` on, `spis` of them, each a number of the GIC's.
    ///
    /// # Errors
    /// A guest's bus can't have them.
    pub fn new(first_spi: u32, spis: u32) -> Result<Self, NoSpis> {
        let last = spis.checked_sub(1).and_then(|more| first_spi.checked_add(more));
        match last {
            Some(last) if first_spi > LAST_MMIO_SPI && last <= LAST_SPI => {
                Ok(Self { first_spi, spis, grants: None })
            }
            _ => Err(NoSpis { first: first_spi, spis }),
        }
    }

    /// The guest is to share its memory with these devices by grants to this domain: with the first device of its
    /// `xl.cfg`, disks before others, and so on; with all, if none is named.
    #[must_use]
    pub fn with_grants(self, devices: &[u8], domid: DomId) -> Self {
        let devices = if devices.is_empty() { (1..=31).collect() } else { devices.to_vec() };
        Self { grants: Some((devices, domid)), ..self }
    }

    /// The value of xl.cfg's `nr_spis` that it takes.
    pub fn nr_spis(&self) -> u32 {
        self.first_spi + self.spis - FIRST_GIC_SPI
    }

    /// The tree, in the form that `device_tree` wants: libxl copies what is below `/passthrough`.
    ///
    /// # Panics
    /// Never: what is written is well-formed.
    pub fn to_dtb(&self) -> Vec<u8> {
        self.write().expect("a tree of constant form is well-formed")
    }

    fn write(&self) -> FdtWriterResult<Vec<u8>> {
        let mut tree = FdtWriter::new()?;
        let root = tree.begin_node("")?;
        tree.property_u32("#address-cells", 2)?;
        tree.property_u32("#size-cells", 2)?;
        let passthrough = tree.begin_node("passthrough")?;
        tree.property_string("compatible", "simple-bus")?;
        tree.property_null("ranges")?;
        tree.property_u32("#address-cells", 2)?;
        tree.property_u32("#size-cells", 2)?;
        self.write_frame(&mut tree)?;
        self.write_bridge(&mut tree)?;
        tree.end_node(passthrough)?;
        tree.end_node(root)?;
        tree.finish()
    }

    /// Linux `Documentation/devicetree/bindings/interrupt-controller/arm,gic.yaml`, `v2m@`.
    fn write_frame(&self, tree: &mut FdtWriter) -> FdtWriterResult<()> {
        let node = tree.begin_node(&format!("v2m@{:x}", FRAME.start()))?;
        tree.property_string("compatible", "arm,gic-v2m-frame")?;
        tree.property_null("msi-controller")?;
        tree.property_array_u64("reg", &[*FRAME.start(), len(&FRAME)])?;
        tree.property_u32("arm,msi-base-spi", self.first_spi)?;
        tree.property_u32("arm,msi-num-spis", self.spis)?;
        tree.property_phandle(FRAME_PHANDLE)?;
        tree.end_node(node)
    }

    /// Linux `Documentation/devicetree/bindings/pci/host-generic-pci.yaml`.
    fn write_bridge(&self, tree: &mut FdtWriter) -> FdtWriterResult<()> {
        let node = tree.begin_node(&format!("pcie@{:x}", ECAM.start()))?;
        tree.property_string("compatible", "pci-host-ecam-generic")?;
        tree.property_string("device_type", "pci")?;
        tree.property_array_u64("reg", &[*ECAM.start(), len(&ECAM)])?;
        tree.property_array_u32("bus-range", &[0, 0])?;
        tree.property_u32("#address-cells", 3)?;
        tree.property_u32("#size-cells", 2)?;
        let (high, low) = halves(*MEMORY.start());
        let (len_high, len_low) = halves(len(&MEMORY));
        tree.property_array_u32("ranges", &[MEMORY_32, high, low, high, low, len_high, len_low])?;
        tree.property_u32("msi-parent", FRAME_PHANDLE)?;
        tree.property_null("dma-coherent")?;
        if let Some((devices, domid)) = &self.grants {
            // One entry for each device: what comes out, of which Linux takes the domain, counts up within an entry.
            let entry = |device: &u8| [u32::from(*device) << 3, GRANTS_PHANDLE, (*domid).into(), 1];
            let map: Vec<u32> = devices.iter().flat_map(entry).collect();
            tree.property_array_u32("iommu-map", &map)?;
        }
        tree.end_node(node)
    }
}

impl Default for DeviceTree {
    fn default() -> Self {
        Self { first_spi: Self::FIRST_SPI, spis: Self::SPIS, grants: None }
    }
}

/// What it is, for whoever writes the guest's xl.cfg.
impl fmt::Display for DeviceTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.first_spi + self.spis - 1;
        write!(f, "a PCI bus with the interrupts {} to {last}", self.first_spi)
    }
}

fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_that_are_libxls_or_none_of_a_gic_are_refused() {
        for (first, spis) in [(43, 1), (44, 0), (96, 925), (1020, 1), (u32::MAX, 2)] {
            assert!(DeviceTree::new(first, spis).is_err(), "{first} {spis}");
        }
        assert!(DeviceTree::new(44, 976).is_ok());
        let error = DeviceTree::new(33, 4).unwrap_err().to_string();
        assert!(error.contains("from 44 to 1019"), "{error}");
    }

    #[test]
    fn nr_spis_reaches_to_the_last_interrupt() {
        // Interrupts 32 to 159.
        assert_eq!(DeviceTree::default().nr_spis(), 128);
        assert_eq!(DeviceTree::new(44, 1).unwrap().nr_spis(), 13);
    }
}
