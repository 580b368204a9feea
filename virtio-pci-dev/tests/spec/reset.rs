//! The reset of the device (§2.4, §4.1.4.3).

use virtio_dev::{Ignored, PendingWrite, WriteOutcome};

use crate::V1;
use crate::common::{Call, Guest, TestDevice, common};

const PENDING: WriteOutcome = WriteOutcome::Pending(PendingWrite::Reset);

#[test]
fn s4_1_4_3_1_the_status_reads_0_only_when_the_reset_is_done() {
    let mut guest = Guest::live(V1);
    assert_eq!(guest.put(common::DEVICE_STATUS, 0_u8), PENDING);
    assert_eq!(guest.queues.calls, [Call::Stop(0)]);
    // A driver that polls, as Linux's does, as its write was answered at once.
    assert_eq!(guest.status(), 15);
    assert_eq!(guest.put(common::DEVICE_STATUS, 0_u8), PENDING, "again, of another vCPU");
    assert_eq!(guest.queues.calls, [], "it drains already");
    assert!(guest.transport.is_pending(PendingWrite::Reset));
    guest.transport.queue_stopped(0);
    assert!(!guest.transport.is_pending(PendingWrite::Reset));
    assert_eq!(guest.status(), 0);
    assert_eq!(guest.transport.device().resets, 1);
}

#[test]
fn s2_4_1_while_a_reset_is_under_way_nothing_else_is_taken() {
    let mut guest = Guest::live(V1);
    assert_eq!(guest.put(common::DEVICE_STATUS, 0_u8), PENDING);
    let refused = WriteOutcome::Ignored(Ignored::ResetPending);
    for (field, width, writable) in common::FIELDS {
        if writable && field != common::DEVICE_STATUS {
            let mut data = vec![0; width];
            data[0] = 1;
            assert_eq!(guest.write(field, &data), refused, "{field:#x}");
        }
    }
    assert_eq!(
        guest.put(common::DEVICE_STATUS, 1_u8),
        WriteOutcome::Ignored(Ignored::Status(guest.transport.status()))
    );
    let notify = guest.at.notify.offset;
    assert_eq!(guest.write(notify, &[0, 0]), refused);
    let device = guest.at.device.unwrap().offset;
    assert_eq!(guest.write(device + 8, &[1]), refused);
}

#[test]
fn s2_4_1_from_the_reset_on_no_message_is_sent() {
    let mut guest = Guest::live(V1);
    let interrupt = guest.transport.interrupt(0);
    assert_eq!(guest.put(common::DEVICE_STATUS, 0_u8), PENDING);
    interrupt.used_buffer();
    interrupt.config_change();
    guest.messages.none("though requests still end");
    guest.stopped();
    interrupt.used_buffer();
    interrupt.needs_reset();
    guest.messages.none("");
    assert_eq!(guest.status(), 0);
}

#[test]
fn s4_1_5_1_2_after_a_reset_no_event_has_a_vector_and_the_table_is_as_it_was() {
    let mut guest = Guest::live(V1);
    let vectors = guest.transport.state().vectors;
    guest.queues.stops_at_once = true;
    assert_eq!(guest.put(common::DEVICE_STATUS, 0_u8), WriteOutcome::Done);
    assert_eq!(guest.get::<u16>(common::CONFIG_MSIX_VECTOR), 0xffff);
    for queue in [0_u16, 1] {
        guest.set(common::QUEUE_SELECT, queue);
        assert_eq!(guest.get::<u16>(common::QUEUE_MSIX_VECTOR), 0xffff);
    }
    assert_eq!(guest.transport.state().vectors, vectors, "it is the function's");
}

#[test]
fn s2_4_1_a_reset_leaves_a_device_like_new() {
    let mut guest = Guest::live(V1);
    guest.queues.stops_at_once = true;
    guest.transport.config_changed();
    assert_eq!(guest.put(common::DEVICE_STATUS, 0_u8), WriteOutcome::Done);
    let mut state = guest.transport.state();
    let fresh = Guest::new(TestDevice::default()).transport.state();
    state.control.config_generation = fresh.control.config_generation;
    assert_eq!(state.control, fresh.control);
    assert_eq!(state.queue_vectors, fresh.queue_vectors);
    // And it comes up again.
    guest.negotiate(V1);
    assert_eq!(guest.status(), 11);
}
