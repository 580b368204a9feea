//! What the function is (§4.1.2).

use virtio_dev::VirtioDevice;
use virtio_pci_dev::{Error, PciTransport};

use crate::common::{Guest, Messages, TestDevice};

/// A device of a type and nothing else.
struct Typed(u32, usize, usize);

impl VirtioDevice for Typed {
    fn device_type(&self) -> u32 {
        self.0
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[1; 0x1_0000][..self.1]
    }
    fn config(&self) -> &[u8] {
        &[0; 0x10_0000][..self.2]
    }
}

fn new(kind: u32, queues: usize, config: usize) -> Result<PciTransport<Typed>, Error> {
    PciTransport::new(Typed(kind, queues, config), Messages::default())
}

#[test]
fn s4_1_2_the_vendor_is_virtios_and_the_device_id_says_the_type() {
    for kind in [1, 2, 26, 63] {
        let mut transport = new(kind, 1, 0).unwrap();
        let mut id = [0; 4];
        transport.config_read(0, &mut id);
        assert_eq!(u32::from_le_bytes(id), (0x1040 + kind) << 16 | 0x1af4);
    }
}

#[test]
fn s4_1_2_a_type_that_has_no_device_id_is_refused() {
    assert_eq!(new(64, 1, 0).err(), Some(Error::DeviceType(64)));
    assert_eq!(new(u32::MAX, 1, 0).err(), Some(Error::DeviceType(u32::MAX)));
}

#[test]
fn s4_1_2_1_the_revision_and_the_subsystem_are_those_of_a_device_that_is_not_transitional() {
    let mut guest = Guest::new(TestDevice::default());
    assert!(guest.config::<u8>(0x08) >= 1, "the revision");
    assert!(guest.config::<u16>(0x2e) >= 0x40, "the subsystem ID");
}

#[test]
fn a_block_device_is_mass_storage() {
    let mut guest = Guest::new(TestDevice::default());
    assert_eq!(guest.config::<u32>(0x08) >> 8, 0x01_80_00);
}

#[test]
fn the_function_is_alone_in_its_slot_and_has_no_interrupt_pin_and_no_rom() {
    let mut guest = Guest::new(TestDevice::default());
    assert_eq!(guest.config::<u8>(0x0e), 0, "header type 0, one function");
    assert_eq!(guest.config::<u8>(0x3d), 0, "interrupt pin");
    assert_eq!(guest.config::<u32>(0x30), 0, "expansion ROM");
}

#[test]
fn a_device_that_does_not_fit_the_bar_is_refused() {
    assert_eq!(new(2, 1, 0x10_0000).err(), Some(Error::Bar { config: 0x10_0000, queues: 1 }));
    assert_eq!(new(2, 0x1_0000, 0).err(), Some(Error::Bar { config: 0, queues: 0x1_0000 }));
    assert!(new(2, 0xffff, 0x1000).is_ok());
    assert!(new(2, 0, 0).is_ok());
}
