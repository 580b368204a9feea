//! What a driver does in several accesses.

use virtio_pci_dev::PciAddress;

use super::Op;
use super::guest::Guest;
use super::rules::DOORBELL;
use crate::transport_case::wanted;

impl Guest {
    pub(super) fn initialise(&mut self, features: u8, log: u8) {
        let wanted = wanted(self.features, features);
        self.set(Op::place(0x14), 0);
        self.finish();
        self.memory.put(0, &[0; 0x600]);
        self.entry(0, DOORBELL, 100, false);
        self.entry(1, DOORBELL, 101, false);
        self.set_function(1 | 4);
        for (field, value) in [
            (0x14, 1),
            (0x14, 3),
            (0x08, 0),
            (0x0c, wanted & 0xffff_ffff),
            (0x08, 1),
            (0x0c, wanted >> 32),
            (0x14, 11),
            (0x10, 0),
            (0x16, 0),
            (0x18, 1 << (log % 8)),
            (0x1a, 1),
            (0x20, 0),
            (0x28, 0x200),
            (0x30, 0x400),
            (0x1c, 1),
            (0x14, 15),
        ] {
            self.set(Op::place(field), value);
        }
    }

    /// Writes an entry of the table, wherever that is.
    pub(super) fn entry(&mut self, vector: u64, address: u64, data: u32, masked: bool) {
        let at = self.places.table + vector * 16;
        let parts = [address as u32, (address >> 32) as u32, data, masked.into()];
        for (at, part) in (at..).step_by(4).zip(parts) {
            self.write(PciAddress::Bar(at), &part.to_le_bytes());
        }
    }

    pub(super) fn set_function(&mut self, bits: u8) {
        let control = (bits & 1) << 7 | (bits & 2) << 5;
        self.write(PciAddress::Config(self.places.msix as u16 + 3), &[control]);
        self.write(PciAddress::Config(4), &[2 | bits & 4]);
    }

    pub(super) fn window(&mut self, offset: u16, width: u8, value: u32) {
        let at = self.places.window as u16;
        self.write(PciAddress::Config(at + 4), &[0]);
        self.write(PciAddress::Config(at + 8), &u32::from(offset).to_le_bytes());
        self.write(PciAddress::Config(at + 12), &u32::from(width).to_le_bytes());
        self.read(PciAddress::Config(at + 16), 4);
        self.write(PciAddress::Config(at + 16), &value.to_le_bytes());
    }
}
