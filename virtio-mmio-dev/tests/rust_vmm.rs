//! Device code of rust-vmm's, on virtio-queue, behind this crate's registers.

#[path = "../examples/rust_vmm_device.rs"]
mod rust_vmm_device;

mod common;

use rust_vmm_device::{Capitals, CapitalsQueue};
use virtio_dev::vm_memory::{Bytes, GuestAddress};
use virtio_dev::{QueueConfig, Queues, Status, WriteOutcome, feature};
use virtio_mmio_dev::{MmioTransport, Register};
use virtio_queue::{Error, Queue, QueueT};

use common::{DATA, Desc, INDIRECT, NEXT, RING, Ram, Ring, TABLES, WRITE, ram};

#[test]
fn the_example_serves_a_driver() {
    rust_vmm_device::main().unwrap();
}

const CONFIG: QueueConfig = QueueConfig {
    index: 0,
    size: 16,
    size_max: 64,
    desc_table: 0x8000_0001_2345_0010,
    avail_ring: 0x8000_0001_2346_0002,
    used_ring: 0x8000_0001_2347_0004,
    event_idx: true,
    indirect: true,
    next_avail: 0xfffe,
    next_used: 0xfffc,
};

#[test]
fn a_queue_of_virtio_queue_is_set_up_as_the_driver_and_the_saved_state_say() {
    let queue = Queue::try_from(&CONFIG).unwrap();
    assert!(queue.ready());
    assert_eq!((queue.size(), queue.max_size()), (16, 64));
    let rings = (queue.desc_table(), queue.avail_ring(), queue.used_ring());
    assert_eq!(rings, (CONFIG.desc_table, CONFIG.avail_ring, CONFIG.used_ring));
    assert_eq!((queue.next_avail(), queue.next_used()), (0xfffe, 0xfffc));
    assert!(queue.event_idx_enabled());
    let plain = Queue::try_from(&QueueConfig { event_idx: false, ..CONFIG }).unwrap();
    assert!(!plain.event_idx_enabled());
}

#[test]
fn what_cannot_be_a_queue_of_virtio_queue_is_an_error() {
    let refused = |config: QueueConfig| Queue::try_from(&config).unwrap_err();
    assert!(matches!(refused(QueueConfig { size: 128, ..CONFIG }), Error::InvalidSize));
    assert!(matches!(refused(QueueConfig { size: 3, ..CONFIG }), Error::InvalidSize));
    assert!(matches!(refused(QueueConfig { size_max: 3, ..CONFIG }), Error::InvalidMaxSize));
    for part in 0..3 {
        let mut config = CONFIG;
        *[&mut config.desc_table, &mut config.avail_ring, &mut config.used_ring][part] |= 1;
        let error = refused(config);
        assert!(
            matches!(
                (part, &error),
                (0, Error::InvalidDescTableAlign)
                    | (1, Error::InvalidAvailRingAlign)
                    | (2, Error::InvalidUsedRingAlign)
            ),
            "{part}: {error}"
        );
    }
}

/// A live device, and its queue.
fn live(memory: &Ram, features: u64) -> (MmioTransport<Capitals>, CapitalsQueue<&Ram>) {
    let mut transport = MmioTransport::new(Capitals, || {}).unwrap();
    let mut queue = CapitalsQueue::new(memory);
    for (register, value) in [
        (Register::Status, 3),
        (Register::DriverFeatures, features as u32),
        (Register::DriverFeaturesSel, 1),
        (Register::DriverFeatures, (features >> 32) as u32),
        (Register::Status, 11),
        (Register::QueueSize, 16),
        (Register::QueueDescLow, RING.desc as u32),
        (Register::QueueDriverLow, RING.avail as u32),
        (Register::QueueDeviceLow, RING.used as u32),
        (Register::QueueReady, 1),
        (Register::Status, 15),
    ] {
        let outcome = transport.write(register.offset(), &value.to_le_bytes(), &mut queue);
        assert_eq!(outcome, WriteOutcome::Done, "{register:?}");
    }
    (transport, queue)
}

#[test]
fn its_ring_runs_round_with_event_idx_and_indirect_tables() {
    let memory = ram();
    let features = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;
    let (mut transport, mut queue) = live(&memory, features);
    let mut ring = Ring::new(&memory, 16);
    memory.write_slice(b"text", GuestAddress(DATA)).unwrap();
    ring.table(TABLES, &[Desc(DATA, 4, NEXT, 1), Desc(DATA + 0x100, 8, WRITE, 0)]);
    for round in 0..40_u16 {
        let head = round % 16;
        ring.desc(head, Desc(TABLES, 32, INDIRECT, 0));
        ring.set_used_event(round);
        ring.offer(head);
        assert_eq!(ring.avail_event(), round, "a kick is asked for");
        queue.notify(0);
        assert_eq!(ring.used(), [(u32::from(head), 4)]);
        let mut pending = [0; 4];
        transport.read(Register::InterruptStatus.offset(), &mut pending);
        assert_eq!(pending, [1, 0, 0, 0], "round {round}");
        let offset = Register::InterruptAck.offset();
        assert_eq!(transport.write(offset, &pending, &mut queue), WriteOutcome::Done);
    }
    let mut text = [0; 4];
    memory.read_slice(&mut text, GuestAddress(DATA + 0x100)).unwrap();
    assert_eq!(&text, b"TEXT");
}

#[test]
fn a_broken_ring_ends_in_a_reset_and_the_device_goes_on_after_it() {
    let memory = ram();
    let (mut transport, mut queue) = live(&memory, feature::VERSION_1);
    Ring::new(&memory, 16).set_avail_idx(17);
    queue.notify(0);
    assert!(transport.status().contains(Status::DEVICE_NEEDS_RESET));
    let outcome = transport.write(Register::Status.offset(), &[0; 4], &mut queue);
    assert_eq!((outcome, transport.status()), (WriteOutcome::Done, Status::empty()));
}
