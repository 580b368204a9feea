//! What a driver does in several accesses.

use virtio_pci_dev::PciAddress;

use super::Op;
use super::guest::Guest;
use super::rules::DOORBELL;

const NEXT: u8 = 1;
const WRITE: u8 = 2;

impl Guest {
    pub(super) fn initialise(&mut self, features: u8, log: u8) {
        let mut wanted = self.features;
        for (bit, feature) in [(1, 1_u64 << 9), (2, 1 << 28), (4, 1 << 29)] {
            if features & bit == 0 {
                wanted &= !feature;
            }
        }
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

    /// Fills a descriptor of the queue, wherever its table is.
    pub(super) fn descriptor(&self, index: u16, addr: u64, len: u32, flags: u8, next: u8) {
        let table = self.function.state().control.queues[0].desc_table;
        let mut bytes = Vec::with_capacity(16);
        bytes.extend(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(u16::from(flags).to_le_bytes());
        bytes.extend(u16::from(next).to_le_bytes());
        if let Some(at) = table.checked_add(16 * u64::from(index)) {
            self.memory.put(at, &bytes);
        }
    }

    pub(super) fn offer(&self, head: u8) {
        let queue = &self.function.state().control.queues[0];
        let (Some(index_at), size) = (queue.avail_ring.checked_add(2), queue.size.max(1)) else {
            return;
        };
        let index = u16::from_le_bytes(self.memory.get(index_at));
        let slot = index_at.checked_add(2 + 2 * u64::from(index % size));
        self.memory.put(slot.unwrap_or(u64::MAX), &u16::from(head).to_le_bytes());
        self.memory.put(index_at, &index.wrapping_add(1).to_le_bytes());
    }

    pub(super) fn request(&mut self, kind: u8, sector: u8, sectors: u8) {
        let (header, data, status) = (0x800_u64, 0x1000, 0x810);
        let mut bytes = Vec::with_capacity(16);
        bytes.extend(u64::from(kind).to_le_bytes());
        bytes.extend(u64::from(sector).to_le_bytes());
        self.memory.put(header, &bytes);
        let write = if kind == 1 { 0 } else { WRITE };
        self.descriptor(0, header, 16, NEXT, 1);
        self.descriptor(1, data, u32::from(sectors) * 512, NEXT | write, 2);
        self.descriptor(2, status, 1, WRITE, 0);
        self.offer(0);
        self.write(PciAddress::Bar(0x1000), &[0, 0]);
    }
}
