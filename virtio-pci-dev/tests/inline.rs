//! A device that serves its queues where its registers are answered, over virtio-pci.

mod common;

use std::rc::Rc;

use virtio_dev::vm_memory::{Bytes, GuestAddress};
use virtio_dev::{InlineDevice, feature};
use virtio_pci_dev::{PciAddress, PciTransport};

use common::{
    DATA, Desc, Guest, Messages, RING, Ram, Ring, TestDevice, WRITE, common as field, ram,
};

type Device = InlineDevice<PciTransport<TestDevice>, Rc<Ram>, Rc<Ram>>;

fn write(device: &mut Device, offset: u64, data: &[u8]) {
    assert_eq!(device.write(PciAddress::Bar(offset), data), None, "{offset:#x}");
}

/// A live device, taken from a guest that has set up everything but the queues.
fn live(memory: &Rc<Ram>) -> (Device, Messages, u64) {
    let mut guest = Guest::placed(TestDevice::default());
    guest.enable_messages();
    guest.negotiate(feature::VERSION_1);
    guest.set_up_queue(0, 16, &RING);
    guest.set(field::QUEUE_MSIX_VECTOR, 1_u16);
    let notify = guest.at.notify.offset;
    let mut device = InlineDevice::new(guest.transport, Rc::clone(memory), Rc::clone(memory));
    write(&mut device, field::QUEUE_ENABLE, &[1, 0]);
    write(&mut device, field::DEVICE_STATUS, &[15]);
    (device, guest.messages, notify)
}

#[test]
fn a_notified_queue_is_served_and_its_message_sent() {
    let memory = Rc::new(ram());
    let mut ring = Ring::new(&*memory, 16);
    let (mut device, messages, notify) = live(&memory);
    assert!(!device.process(|_, _, _| None), "nothing is there");
    ring.desc(3, Desc(DATA, 8, WRITE, 0));
    ring.offer(3);
    assert!(!device.process(|_, _, _| None), "not notified");
    messages.none("nor answered");
    write(&mut device, notify, &[0, 0]);
    assert!(!device.process(|_, queue, chain| {
        assert_eq!(queue, 0);
        Some(chain.copy_to(0, &[7; 8]).unwrap() as u32)
    }));
    assert_eq!(ring.used(), [(3, 8)]);
    assert_eq!(memory.read_obj::<u64>(GuestAddress(DATA)).unwrap(), 0x0707_0707_0707_0707);
    assert_eq!(messages.take(), [101]);
}

#[test]
fn a_reset_lets_go_of_the_rings_before_it_is_answered() {
    let memory = Rc::new(ram());
    let (mut device, ..) = live(&memory);
    let users = Rc::strong_count(&memory);
    write(&mut device, field::DEVICE_STATUS, &[0]);
    let mut status = [0xaa];
    device.read(PciAddress::Bar(field::DEVICE_STATUS), &mut status);
    assert_eq!(status, [0]);
    assert!(Rc::strong_count(&memory) < users);
}

#[test]
fn the_configuration_space_is_the_other_address_space() {
    let memory = Rc::new(ram());
    let (mut device, messages, _) = live(&memory);
    let mut id = [0; 4];
    device.read(PciAddress::Config(0), &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x1042_1af4);
    assert_eq!(device.write(PciAddress::Config(4), &[0, 0]), None);
    assert_eq!(device.transport().bar(), None);
    write(&mut device, field::CONFIG_MSIX_VECTOR, &[0, 0]);
    device.config_changed();
    messages.none("it is no bus master any more");
    assert_eq!(device.write(PciAddress::Config(4), &[6, 0]), None);
    assert_eq!(messages.take(), [100]);
}
