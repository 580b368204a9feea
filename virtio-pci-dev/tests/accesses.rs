//! Any sequence of accesses to either space, of any offset, width and data, leaves the function in a
//! state that can be: nothing panics, read-only registers stay, messages go only where they may.

mod common;

use proptest::prelude::*;
use virtio_dev::{Status, WriteOutcome, feature};
use virtio_pci_dev::{PciState, PciTransport};

use common::{Call, DOORBELL, Guest, Messages, TestDevice, common as field};

#[derive(Clone, Debug)]
enum Step {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    ReadConfig(u16, usize),
    WriteConfig(u16, Vec<u8>),
    /// What a driver writes to come forward.
    Status(u8),
    Features(u64),
    Queue(u16),
    Entry(u16, bool),
    Msix(bool, bool),
    BusMaster(bool),
    Stopped(u16),
    UsedBuffer(u16),
    ConfigChanged,
    NeedsReset,
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..0x40_u64,
        2 => prop::sample::select(field::FIELDS.to_vec()).prop_map(|(field, ..)| field),
        1 => 0x100..0x110_u64,
        1 => 0x1000..0x1010_u64,
        2 => 0x2000..0x2040_u64,
        1 => 0x3000..0x3010_u64,
        1 => any::<u64>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let width = || prop_oneof![8 => prop::sample::select(vec![1_usize, 2, 4, 8]), 1 => 0..20_usize];
    let small = prop_oneof![Just(0_u64), Just(1), Just(0xffff), 0..16_u64, any::<u64>()];
    let data = (width(), small).prop_map(|(width, value)| {
        let mut data = value.to_le_bytes().to_vec();
        data.resize(width, 0xff);
        data
    });
    let data = data.boxed();
    let status = prop::sample::select(vec![0_u8, 1, 3, 11, 15, 7, 128]);
    prop_oneof![
        4 => (offset(), width()).prop_map(|(at, width)| Step::Read(at, width)),
        8 => (offset(), data.clone()).prop_map(|(at, data)| Step::Write(at, data)),
        2 => (0..300_u16, width()).prop_map(|(at, width)| Step::ReadConfig(at, width)),
        3 => (0..300_u16, data).prop_map(|(at, data)| Step::WriteConfig(at, data)),
        6 => status.prop_map(Step::Status),
        2 => Just(Step::Features(feature::VERSION_1)),
        1 => any::<u64>().prop_map(|bits| Step::Features(bits | feature::VERSION_1)),
        4 => (0..3_u16).prop_map(Step::Queue),
        2 => (0..3_u16, any::<bool>()).prop_map(|(vector, masked)| Step::Entry(vector, masked)),
        2 => any::<(bool, bool)>().prop_map(|(enabled, masked)| Step::Msix(enabled, masked)),
        1 => any::<bool>().prop_map(Step::BusMaster),
        2 => (0..3_u16).prop_map(Step::Stopped),
        4 => (0..3_u16).prop_map(Step::UsedBuffer),
        1 => Just(Step::ConfigChanged),
        1 => Just(Step::NeedsReset),
    ]
}

/// Whether a message may be sent now, by what the driver has written.
fn sends(guest: &mut Guest) -> bool {
    let control: u16 = guest.config(guest.at.msix + 2);
    let command: u16 = guest.config(4);
    control & 0xc000 == 0x8000 && command & 4 != 0
}

fn run(guest: &mut Guest, step: Step) {
    match step {
        Step::Read(at, width) => guest.transport.bar_read(at, &mut vec![0xaa; width]),
        Step::Write(at, data) => {
            let outcome = guest.write(at, &data);
            check_outcome(guest, outcome);
        }
        Step::ReadConfig(at, width) => guest.transport.config_read(at, &mut vec![0xaa; width]),
        Step::WriteConfig(at, data) => {
            let outcome = guest.write_config(at, &data);
            check_outcome(guest, outcome);
        }
        Step::Status(status) => {
            let outcome = guest.put(field::DEVICE_STATUS, status);
            check_outcome(guest, outcome);
        }
        Step::Features(features) => guest.offer(features),
        Step::Queue(queue) => {
            guest.set(field::QUEUE_SELECT, queue);
            guest.set(field::QUEUE_MSIX_VECTOR, queue + 1);
            guest.set(field::QUEUE_ENABLE, 1_u16);
        }
        Step::Entry(vector, masked) => guest.set_entry(vector, DOORBELL, vector.into(), masked),
        Step::Msix(enabled, masked) => guest.set_msix(enabled, masked),
        Step::BusMaster(on) => guest.set_bus_master(on),
        Step::Stopped(queue) => guest.transport.queue_stopped(queue),
        Step::UsedBuffer(queue) => guest.transport.interrupt(queue).used_buffer(),
        Step::ConfigChanged => guest.transport.config_changed(),
        Step::NeedsReset => guest.transport.interrupt(0).needs_reset(),
    }
}

fn check_outcome(guest: &Guest, outcome: WriteOutcome) {
    match outcome {
        WriteOutcome::Notify(queue) => assert!(guest.transport.queue(queue).is_some()),
        WriteOutcome::Pending(write) => assert!(guest.transport.is_pending(write)),
        WriteOutcome::Ignored(_) => assert_eq!(guest.queues.calls, []),
        WriteOutcome::Done => {}
    }
    let live =
        |call: &Call| matches!(call, Call::Start(queue) if guest.transport.queue(*queue).is_none());
    assert!(!guest.queues.calls.iter().any(live), "{:?}", guest.queues.calls);
}

/// What holds after each step.
fn check(guest: &mut Guest, before: &PciState) {
    let state = guest.transport.state();
    assert_eq!(state.vectors.len(), before.vectors.len());
    let vectors = u16::try_from(state.vectors.len()).unwrap();
    for vector in state.queue_vectors.iter().chain([&state.config_vector]) {
        assert!(*vector < vectors || *vector == 0xffff);
    }
    if state.control.reset_pending {
        assert!(state.queue_vectors.iter().all(|vector| *vector == 0xffff));
    }
    let sends = sends(guest);
    let sent = guest.messages.take();
    for (index, vector) in state.vectors.iter().enumerate() {
        let may = sends && !vector.masked;
        assert!(!(vector.pending && may), "vector {index} is pending and not masked");
        if sent.contains(&vector.data) && vector.address == DOORBELL {
            // A write may mask what it has sent just before, but none does both here.
            assert!(sends, "a message was sent though none may be");
        }
    }
    let status = state.control.status;
    assert!(
        status.contains(Status::DRIVER)
            || !status.intersects(Status::DRIVER_OK | Status::FEATURES_OK)
    );
    let mut id = [0; 4];
    guest.transport.config_read(0, &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x1042_1af4);
    if let Some(bar) = guest.transport.bar() {
        assert!(bar.start % 0x4000 == 0 && bar.end - bar.start == 0x4000 && bar.end <= 1 << 32);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }))]
    #[test]
    fn any_accesses_leave_a_state_that_can_be(steps in prop::collection::vec(step(), 1..60)) {
        let mut guest = Guest::placed(TestDevice::default());
        for step in steps {
            let before = guest.transport.state();
            run(&mut guest, step);
            check(&mut guest, &before);
        }
        // Each state is one that can be restored, and is the same then.
        let state = guest.transport.state();
        let builder = PciTransport::builder(TestDevice::default(), Messages::default());
        let restored = builder.restore(&state).unwrap();
        prop_assert_eq!(restored.state(), state);
    }
}
