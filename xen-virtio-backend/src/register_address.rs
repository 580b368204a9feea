//! Where a register of a device is.

/// Where a register of a device is that the guest accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterAddress {
    /// At this offset in the device's virtio-mmio window.
    Mmio(u64),
    /// At this offset in the configuration space of its PCI function.
    PciConfig(u16),
    /// At this offset in what BAR 0 of its PCI function spans.
    PciBar(u64),
}

impl RegisterAddress {
    /// Of what the [`offset`](Self::offset) is, in a word.
    pub fn space(self) -> &'static str {
        match self {
            Self::Mmio(_) => "mmio",
            Self::PciConfig(_) => "pci-config",
            Self::PciBar(_) => "pci-bar",
        }
    }

    /// The offset, in bytes.
    pub fn offset(self) -> u64 {
        match self {
            Self::Mmio(offset) | Self::PciBar(offset) => offset,
            Self::PciConfig(offset) => offset.into(),
        }
    }
}
