//! What a guest's device tree is to say of its PCI bus.

use clap::{Args, value_parser};
use xen_virtio_backend::pci::{DeviceTree, NoSpis};

/// What the device tree says.
#[derive(Debug, Clone, Args)]
pub struct DeviceTreeArgs {
    /// Interrupts of all disks together: each needs one for itself, and one for each of its queues.
    #[arg(long, value_name = "N", default_value_t = DeviceTree::SPIS)]
    pub spis: u32,
    /// The first of them, from 44 on. They must be none of xl.cfg's `irqs`.
    #[arg(long, value_name = "NUMBER", default_value_t = DeviceTree::FIRST_SPI)]
    pub first_spi: u32,
    /// Has the guest share its memory by grants with the devices whose lines in xl.cfg say grant_usage=1: with all of
    /// them, or as 1,3 with the first and the third, where disks count before other virtio devices.
    #[arg(long, value_name = "LIST", num_args = 0..=1, require_equals = true, value_delimiter = ',', value_parser = value_parser!(u8).range(1..=31))]
    pub grants: Option<Vec<u8>>,
    /// The domain that the grants are for, if it isn't dom0.
    #[arg(long, value_name = "DOMID", default_value_t = 0, requires = "grants")]
    pub grants_to: u16,
}

impl DeviceTreeArgs {
    /// The tree.
    ///
    /// # Errors
    /// A guest can't have these interrupts.
    pub fn tree(&self) -> Result<DeviceTree, NoSpis> {
        let tree = DeviceTree::new(self.first_spi, self.spis)?;
        Ok(match &self.grants {
            Some(devices) => tree.with_grants(devices, self.grants_to),
            None => tree,
        })
    }
}
