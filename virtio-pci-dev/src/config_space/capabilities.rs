//! The list of capabilities (virtio 1.2 §4.1.4, PCI Local Bus 3.0 §6.8.2).

use super::ConfigSpace;
use super::offsets::{
    COMMON_CFG, DEVICE_CFG, ISR_CFG, MSIX, MSIX_CONTROL, NOTIFY_CFG, PCI_CFG, PCI_CFG_BAR,
    PCI_CFG_OFFSET,
};
use crate::layout::{COMMON, COMMON_LEN, DEVICE, ISR, ISR_LEN, Layout, NOTIFY_OFF_MULTIPLIER};

/// Vendor-specific.
const ID_VENDOR: u8 = 0x09;
const ID_MSIX: u8 = 0x11;
/// Function Mask and MSI-X Enable, in the upper byte of the message control.
const MSIX_WRITABLE: u8 = 0xc0;

/// `cfg_type` of a structure.
#[derive(Clone, Copy)]
enum Type {
    Common = 1,
    Notify = 2,
    Isr = 3,
    Device = 4,
    Pci = 5,
}

impl ConfigSpace {
    pub(super) fn put_capabilities(&mut self, layout: &Layout) {
        let after_window = if layout.device_len == 0 { 0 } else { DEVICE_CFG };
        let last_vector = layout.vectors.saturating_sub(1);
        self.set(MSIX, &[ID_MSIX, link(COMMON_CFG)]);
        self.set(MSIX_CONTROL, &last_vector.to_le_bytes());
        self.set_writable(MSIX_CONTROL, &[0, MSIX_WRITABLE]);
        // The low three bits are the BAR's number, 0.
        self.set(MSIX + 4, &layout.table.to_le_bytes());
        self.set(MSIX + 8, &layout.pending_bits.to_le_bytes());

        self.structure(COMMON_CFG, NOTIFY_CFG, Type::Common, 16, (COMMON, COMMON_LEN));
        let notify = (layout.notify, layout.notify_len);
        self.structure(NOTIFY_CFG, ISR_CFG, Type::Notify, 20, notify);
        self.set(NOTIFY_CFG + 16, &NOTIFY_OFF_MULTIPLIER.to_le_bytes());
        self.structure(ISR_CFG, PCI_CFG, Type::Isr, 16, (ISR, ISR_LEN));
        self.structure(PCI_CFG, after_window, Type::Pci, 20, (0, 0));
        self.set_writable(PCI_CFG_BAR, &[0xff]);
        self.set_writable(PCI_CFG_OFFSET, &[0xff; 12]);
        if layout.device_len != 0 {
            self.structure(DEVICE_CFG, 0, Type::Device, 16, (DEVICE, layout.device_len));
        }
    }

    /// `struct virtio_pci_cap`, of a structure in BAR 0.
    fn structure(&mut self, at: u16, next: u16, kind: Type, len: u8, part: (u32, u32)) {
        self.set(at, &[ID_VENDOR, link(next), len, kind as u8]);
        let (offset, length) = part;
        for (field, value) in [(8, offset), (12, length)] {
            self.set(at.saturating_add(field), &value.to_le_bytes());
        }
    }
}

/// Capabilities are in the first 256 bytes.
fn link(at: u16) -> u8 {
    let [low, _] = at.to_le_bytes();
    low
}
