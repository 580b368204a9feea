//! Where the capabilities are in the configuration space.

/// Where the list begins.
pub(crate) const FIRST: u8 = 0x40;

pub(crate) const MSIX: u16 = FIRST as u16;
/// Message Control of MSI-X.
pub(crate) const MSIX_CONTROL: u16 = MSIX + 2;
pub(crate) const COMMON_CFG: u16 = 0x4c;
pub(crate) const NOTIFY_CFG: u16 = 0x5c;
pub(crate) const ISR_CFG: u16 = 0x70;
pub(crate) const PCI_CFG: u16 = 0x80;
pub(crate) const PCI_CFG_BAR: u16 = PCI_CFG + 4;
pub(crate) const PCI_CFG_OFFSET: u16 = PCI_CFG + 8;
pub(crate) const PCI_CFG_LENGTH: u16 = PCI_CFG + 12;
/// The window's data.
pub(crate) const PCI_CFG_DATA: u16 = PCI_CFG + 16;
pub(crate) const PCI_CFG_DATA_LEN: u16 = 4;
/// The last, as a device without a configuration space of its own has none.
pub(crate) const DEVICE_CFG: u16 = 0x94;
