//! The registers of the function, by accesses that trap.

use virtio_drivers::transport::pci::{
    VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_CAP_ISR_CFG,
    VIRTIO_PCI_CAP_NOTIFY_CFG,
    bus::{CapabilityInfo, ConfigurationAccess as _, PCI_CAP_ID_VNDR, PciRoot},
};

use super::common::pci_driver::Structures;
use super::machine::{BAR, DOORBELL, Machine, SLOT};

/// The structures that `virtio-drivers`' code finds, and Linux's accesses for MSI-X, of which that knows nothing.
pub(crate) struct Registers {
    machine: Machine,
    common: u64,
    notify: u64,
    notify_off_multiplier: u64,
    isr: u64,
    device: u64,
    /// Where the MSI-X table is, of a driver that uses it.
    table: Option<u64>,
}

impl Registers {
    /// Finds the structures in the list of capabilities. With MSI-X, vectors 0 and 1 send 40 and 41.
    pub(crate) fn find(root: &mut PciRoot<Machine>, machine: &Machine, msix: bool) -> Self {
        let (mut found, mut notify_off_multiplier, mut table) = ([0; 5], 0, None);
        let list: Vec<CapabilityInfo> = root.capabilities(SLOT).collect();
        for CapabilityInfo { offset, id, private_header } in list {
            let mut machine = machine.clone();
            if id == PCI_CAP_ID_VNDR {
                let [_, kind] = private_header.to_le_bytes();
                let at = u64::from(BAR) + u64::from(machine.read_word(SLOT, offset + 8));
                if let Some(place) = found.get_mut(usize::from(kind)) {
                    *place = at;
                }
                if kind == VIRTIO_PCI_CAP_NOTIFY_CFG {
                    notify_off_multiplier = machine.read_word(SLOT, offset + 16).into();
                }
            } else if id == 0x11 && msix {
                let at = u64::from(BAR) + u64::from(machine.read_word(SLOT, offset + 4) & !7);
                table = Some(at);
                let control = machine.read_word(SLOT, offset);
                // Linux masks the function until its vectors are set up.
                machine.write_word(SLOT, offset, control | 0xc000_0000);
                for (vector, data) in [(0, 40_u32), (1, 41)] {
                    let entry = at + vector * 16;
                    machine.store(entry, &(DOORBELL as u32).to_le_bytes());
                    machine.store(entry + 4, &((DOORBELL >> 32) as u32).to_le_bytes());
                    machine.store(entry + 8, &data.to_le_bytes());
                    machine.store(entry + 12, &0_u32.to_le_bytes());
                }
                machine.write_word(SLOT, offset, control | 0x8000_0000);
            }
        }
        let place = |kind: u8| found[usize::from(kind)];
        Self {
            machine: machine.clone(),
            common: place(VIRTIO_PCI_CAP_COMMON_CFG),
            notify: place(VIRTIO_PCI_CAP_NOTIFY_CFG),
            notify_off_multiplier,
            isr: place(VIRTIO_PCI_CAP_ISR_CFG),
            device: place(VIRTIO_PCI_CAP_DEVICE_CFG),
            table,
        }
    }

    fn read(&self, at: u64, size: u8) -> u64 {
        match size {
            1 => self.machine.load::<1>(at)[0].into(),
            2 => u16::from_le_bytes(self.machine.load(at)).into(),
            4 => u32::from_le_bytes(self.machine.load(at)).into(),
            _ => u64::from_le_bytes(self.machine.load(at)),
        }
    }

    fn write(&self, at: u64, size: u8, value: u64) {
        self.machine.store(at, &value.to_le_bytes()[..usize::from(size)]);
    }
}

impl Structures for Registers {
    fn device_id(&self) -> u16 {
        (self.machine.read_word(SLOT, 0) >> 16) as u16
    }
    fn read_common(&self, offset: u64, size: u8) -> u64 {
        self.read(self.common + offset, size)
    }
    fn write_common(&self, offset: u64, size: u8, value: u64) {
        self.write(self.common + offset, size, value);
    }
    fn notify(&self, queue: u16, notify_off: u64) {
        self.write(self.notify + notify_off * self.notify_off_multiplier, 2, queue.into());
    }
    fn read_device(&self, offset: u64, size: u8) -> u64 {
        self.read(self.device + offset, size)
    }
    fn write_device(&self, offset: u64, size: u8, value: u64) {
        self.write(self.device + offset, size, value);
    }
    fn take_isr(&self) -> u8 {
        self.read(self.isr, 1) as u8
    }
    fn has_messages(&self) -> bool {
        self.table.is_some()
    }
}
