//! A device that serves its queues where its registers are answered.

mod common;

use std::rc::Rc;

use virtio_dev::vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
use virtio_dev::{Chain, InlineDevice, Status, feature};
use virtio_mmio_dev::{MmioTransport, Register};

use common::{DATA, Desc, RING, Ram, Ring, TestDevice, WRITE, Window, ram};

/// Memory whose users are counted: each guard, and each space, is one.
type Counted = Rc<Ram>;
type Device = InlineDevice<MmioTransport<TestDevice>, Counted, Counted>;

fn write(device: &mut Device, register: Register, value: u32) {
    device.write(register.offset(), &value.to_le_bytes());
}

fn read(device: &mut Device, register: Register) -> u32 {
    let mut data = [0; 4];
    device.read(register.offset(), &mut data);
    u32::from_le_bytes(data)
}

/// A driver's way to `DRIVER_OK`, with queue 0.
fn bring_up(device: &mut Device, desc: u64) {
    for (register, value) in [
        (Register::Status, 1),
        (Register::Status, 3),
        (Register::DriverFeaturesSel, 1),
        (Register::DriverFeatures, (feature::VERSION_1 >> 32) as u32),
        (Register::Status, 11),
        (Register::QueueSel, 0),
        (Register::QueueSize, 16),
        (Register::QueueDescLow, desc as u32),
        (Register::QueueDriverLow, RING.avail as u32),
        (Register::QueueDeviceLow, RING.used as u32),
        (Register::QueueReady, 1),
        (Register::Status, 15),
    ] {
        write(device, register, value);
    }
}

fn new_device(memory: &Counted) -> Device {
    let transport = Window::new(TestDevice::default()).transport;
    InlineDevice::new(transport, Rc::clone(memory), Rc::clone(memory))
}

/// Serves as an echo of `byte`, eight times.
fn with<Q: GuestAddressSpace>(
    byte: u8,
) -> impl FnMut(&mut TestDevice, u16, &Chain<Q>) -> Option<u32> {
    move |_, queue, chain| {
        assert_eq!(queue, 0);
        Some(chain.copy_to(0, &[byte; 8]).unwrap() as u32)
    }
}

fn offer(ring: &mut Ring<'_, Ram>, head: u16) {
    ring.desc(head, Desc(DATA + u64::from(head) * 8, 8, WRITE, 0));
    ring.offer(head);
}

#[test]
fn a_notified_queue_is_served_and_no_other() {
    let memory = Rc::new(ram());
    let mut device = new_device(&memory);
    let mut ring = Ring::new(&*memory, 16);
    bring_up(&mut device, RING.desc);
    assert!(!device.process(with(1)));
    offer(&mut ring, 0);
    assert!(!device.process(with(2)), "not notified");
    assert_eq!(ring.used(), []);
    write(&mut device, Register::QueueNotify, 1);
    assert!(!device.process(with(3)), "not the queue that is there");
    assert_eq!(ring.used(), []);
    write(&mut device, Register::QueueNotify, 0);
    assert!(!device.process(with(4)));
    assert_eq!(ring.used(), [(0, 8)]);
    assert_eq!(memory.read_obj::<[u8; 8]>(GuestAddress(DATA)).unwrap(), [4; 8]);
    assert_eq!(read(&mut device, Register::InterruptStatus), 1);
}

#[test]
fn a_kick_before_driver_ok_counts() {
    let memory = Rc::new(ram());
    let mut device = new_device(&memory);
    let mut ring = Ring::new(&*memory, 16);
    offer(&mut ring, 3);
    write(&mut device, Register::QueueNotify, 0);
    assert!(!device.process(with(1)));
    assert_eq!(ring.used(), [], "nothing before DRIVER_OK (virtio 1.2 §2.1.2)");
    bring_up(&mut device, RING.desc);
    assert!(!device.process(with(1)));
    assert_eq!(ring.used(), [(3, 8)]);
}

#[test]
fn a_driver_that_never_stops_does_not_keep_the_caller() {
    let memory = Rc::new(ram());
    let mut device = new_device(&memory);
    let mut ring = Ring::new(&*memory, 16);
    bring_up(&mut device, RING.desc);
    offer(&mut ring, 0);
    let mut served = 0_u16;
    let more = device.process(|_, _, _| {
        served += 1;
        offer(&mut ring, served % 16);
        Some(0)
    });
    assert!(more);
    assert_eq!(served, 16);
    assert!(!device.process(with(0)), "without another kick");
    assert_eq!(ring.used_idx(), 17);
}

#[test]
fn a_chain_that_can_not_be_answered_yet_stays_first_in_its_queue() {
    let memory = Rc::new(ram());
    let mut device = new_device(&memory);
    let mut ring = Ring::new(&*memory, 16);
    bring_up(&mut device, RING.desc);
    for head in 0..3 {
        offer(&mut ring, head);
    }
    write(&mut device, Register::QueueNotify, 0);
    let unused = Rc::strong_count(&memory);
    let only_first =
        |_: &mut TestDevice, _, chain: &Chain<Counted>| (chain.head() == 0).then_some(8);
    assert!(!device.process(only_first), "nothing to do but to wait");
    assert_eq!(ring.used(), [(0, 8)], "what was answered before is published");
    assert_eq!(device.blocked().collect::<Vec<_>>(), [0]);
    assert_eq!(Rc::strong_count(&memory), unused, "a chain that waits keeps no memory");
    assert!(!device.process(with(1)));
    assert_eq!(ring.used(), [], "it is not tried again before something has changed");
    // Another kick has it tried again, and a resumed queue is served.
    write(&mut device, Register::QueueNotify, 0);
    assert!(!device.process(|_, _, _| None));
    device.resume(0);
    assert!(!device.process(with(1)));
    assert_eq!(ring.used(), [(1, 8), (2, 8)]);
    assert_eq!(device.blocked().count(), 0);
    device.resume(0);
    assert!(!device.process(|_, _, _| unreachable!()), "a queue that isn't blocked");
    // The driver may take back what waits.
    offer(&mut ring, 3);
    write(&mut device, Register::QueueNotify, 0);
    assert!(!device.process(|_, _, _| None));
    write(&mut device, Register::Status, 0);
    assert_eq!(device.blocked().count(), 0);
}

#[test]
fn rings_are_let_go_of_before_a_reset_or_a_stop_is_answered() {
    let memory = Rc::new(ram());
    let mut device = new_device(&memory);
    let unused = Rc::strong_count(&memory);
    for take_back in [(Register::Status, 0), (Register::QueueReady, 0)] {
        let mut ring = Ring::new(&*memory, 16);
        bring_up(&mut device, RING.desc);
        assert!(Rc::strong_count(&memory) > unused);
        write(&mut device, take_back.0, take_back.1);
        assert_eq!(Rc::strong_count(&memory), unused, "{take_back:?}");
        assert_eq!(read(&mut device, take_back.0), 0, "{take_back:?}");
        offer(&mut ring, 0);
        write(&mut device, Register::QueueNotify, 0);
        assert!(!device.process(with(0)));
        assert_eq!(ring.used(), []);
    }
    // The queue comes back by itself, and its kick isn't needed.
    let mut ring = Ring::new(&*memory, 16);
    offer(&mut ring, 2);
    write(&mut device, Register::QueueSize, 16);
    write(&mut device, Register::QueueDescLow, RING.desc as u32);
    write(&mut device, Register::QueueDriverLow, RING.avail as u32);
    write(&mut device, Register::QueueDeviceLow, RING.used as u32);
    write(&mut device, Register::QueueReady, 1);
    assert!(!device.process(with(5)));
    assert_eq!(ring.used().last(), Some(&(2, 8)));
}

#[test]
fn rings_that_are_not_there_make_the_device_ask_for_a_reset() {
    let memory = Rc::new(ram());
    let mut device = new_device(&memory);
    bring_up(&mut device, 0xffff_f000);
    assert!(device.transport().status().contains(Status::DEVICE_NEEDS_RESET));
    write(&mut device, Register::QueueNotify, 0);
    assert!(!device.process(with(0)));
    write(&mut device, Register::Status, 0);
    assert_eq!(device.device_mut().resets, 1);
    bring_up(&mut device, RING.desc);
    assert!(!device.transport().status().contains(Status::DEVICE_NEEDS_RESET));
}

#[test]
fn a_restored_device_goes_on() {
    let memory = Rc::new(ram());
    let mut device = new_device(&memory);
    bring_up(&mut device, RING.desc);
    let state = device.transport().state();
    drop(device);
    let mut ring = Ring::new(&*memory, 16);
    offer(&mut ring, 1);
    let transport = MmioTransport::builder(TestDevice::default(), || ()).restore(&state);
    let mut device = InlineDevice::new(transport.unwrap(), Rc::clone(&memory), Rc::clone(&memory));
    assert!(!device.process(with(6)));
    assert_eq!(ring.used(), [(1, 8)]);
    let before = read(&mut device, Register::ConfigGeneration);
    device.config_changed();
    assert_eq!(read(&mut device, Register::ConfigGeneration), before + 1);
}
