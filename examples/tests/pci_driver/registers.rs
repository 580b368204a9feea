//! The registers of the function, by accesses that trap.

use virtio_drivers::{
    Error, PhysAddr,
    transport::{
        DeviceStatus, DeviceType, InterruptStatus, Transport,
        pci::{
            VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_CAP_ISR_CFG,
            VIRTIO_PCI_CAP_NOTIFY_CFG,
            bus::{CapabilityInfo, ConfigurationAccess as _, PCI_CAP_ID_VNDR, PciRoot},
        },
    },
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::machine::{BAR, DOORBELL, Machine, SLOT};

/// `virtio-drivers`' own `PciTransport` reads and writes mapped memory, which can't trap here; this one
/// makes the same accesses in the same order, and Linux's for MSI-X, of which that knows nothing.
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

    fn read_u16(&self, field: u64) -> u16 {
        u16::from_le_bytes(self.machine.load(self.common + field))
    }

    fn read_u32(&self, field: u64) -> u32 {
        u32::from_le_bytes(self.machine.load(self.common + field))
    }

    fn write(&self, field: u64, data: impl IntoBytes + Immutable) {
        self.machine.store(self.common + field, data.as_bytes());
    }

    fn assign(&self, field: u64, vector: u16) {
        if self.table.is_some() {
            self.write(field, vector);
            assert_eq!(self.read_u16(field), vector, "the device takes the vector");
        }
    }
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn read_device_features(&mut self) -> u64 {
        let page = |page: u32| {
            self.write(0x00, page);
            u64::from(self.read_u32(0x04))
        };
        page(0) | page(1) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        for (page, bits) in [(0_u32, features as u32), (1, (features >> 32) as u32)] {
            self.write(0x08, page);
            self.write(0x0c, bits);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.write(0x16, queue);
        self.read_u16(0x18).into()
    }

    fn notify(&mut self, queue: u16) {
        self.write(0x16, queue);
        let offset = u64::from(self.read_u16(0x1e)) * self.notify_off_multiplier;
        self.machine.store(self.notify + offset, &queue.to_le_bytes());
    }

    fn get_status(&self) -> DeviceStatus {
        let [status] = self.machine.load(self.common + 0x14);
        DeviceStatus::from_bits_truncate(status.into())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(0x14, status.bits() as u8);
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        desc: PhysAddr,
        avail: PhysAddr,
        used: PhysAddr,
    ) {
        self.assign(0x10, 0);
        self.write(0x16, queue);
        self.write(0x18, size as u16);
        // In one access each, as that crate makes them.
        self.write(0x20, desc);
        self.write(0x28, avail);
        self.write(0x30, used);
        self.assign(0x1a, 1);
        self.write(0x1c, 1_u16);
    }

    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.write(0x16, queue);
        self.read_u16(0x1c) == 1
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let [isr] = self.machine.load(self.isr);
        InterruptStatus::from_bits_retain(isr.into())
    }

    fn read_config_generation(&self) -> u32 {
        let [generation] = self.machine.load(self.common + 0x15);
        generation.into()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let mut value = T::new_zeroed();
        let at = self.device + offset as u64;
        let bytes = value.as_mut_bytes();
        match bytes.len() {
            1 => bytes.copy_from_slice(&self.machine.load::<1>(at)),
            2 => bytes.copy_from_slice(&self.machine.load::<2>(at)),
            _ => bytes.copy_from_slice(&self.machine.load::<4>(at)),
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        self.machine.store(self.device + offset as u64, value.as_bytes());
        Ok(())
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        self.set_status(DeviceStatus::empty());
        assert_eq!(self.get_status(), DeviceStatus::empty());
    }
}
