//! Vectors of events, and the messages that events send (§4.1.5.1.2, §4.1.5.3, §4.1.5.4).

use virtio_dev::{Ignored, WriteOutcome};

use crate::V1;
use crate::common::{DOORBELL, Guest, RING, TestDevice, common};

const NO_VECTOR: u16 = 0xffff;

#[test]
fn s4_1_5_1_2_no_event_has_a_vector_before_the_driver_assigns_one() {
    let mut guest = Guest::placed(TestDevice::default());
    assert_eq!(guest.get::<u16>(common::CONFIG_MSIX_VECTOR), NO_VECTOR);
    for queue in [0_u16, 1] {
        guest.set(common::QUEUE_SELECT, queue);
        assert_eq!(guest.get::<u16>(common::QUEUE_MSIX_VECTOR), NO_VECTOR);
    }
}

#[test]
fn s4_1_5_1_2_the_driver_reads_the_vector_that_it_assigned() {
    let mut guest = Guest::placed(TestDevice::default());
    assert_eq!(guest.put(common::CONFIG_MSIX_VECTOR, 2_u16), WriteOutcome::Done);
    assert_eq!(guest.get::<u16>(common::CONFIG_MSIX_VECTOR), 2);
    for queue in [0_u16, 1] {
        guest.set(common::QUEUE_SELECT, queue);
        assert_eq!(guest.put(common::QUEUE_MSIX_VECTOR, queue), WriteOutcome::Done);
    }
    guest.set(common::QUEUE_SELECT, 0_u16);
    assert_eq!(guest.get::<u16>(common::QUEUE_MSIX_VECTOR), 0, "each queue has its own");
    assert_eq!(guest.put(common::QUEUE_MSIX_VECTOR, NO_VECTOR), WriteOutcome::Done, "taken back");
    assert_eq!(guest.get::<u16>(common::QUEUE_MSIX_VECTOR), NO_VECTOR);
}

#[test]
fn s4_1_5_1_2_a_vector_that_is_not_there_reads_as_none() {
    let mut guest = Guest::placed(TestDevice::default());
    let refused = WriteOutcome::Ignored(Ignored::NoVector);
    for vector in [3_u16, 2048, 0xfffe] {
        for field in [common::CONFIG_MSIX_VECTOR, common::QUEUE_MSIX_VECTOR] {
            guest.set(field, 1_u16);
            assert_eq!(guest.put(field, vector), refused);
            assert_eq!(guest.get::<u16>(field), NO_VECTOR, "{vector}");
        }
    }
}

#[test]
fn s4_1_5_3_used_buffers_send_the_message_of_their_queue_each_time() {
    let mut guest = Guest::live(V1);
    guest.set_up_queue(1, 16, &RING);
    guest.set(common::QUEUE_MSIX_VECTOR, 2_u16);
    guest.set(common::QUEUE_ENABLE, 1_u16);
    guest.messages.take();
    for queue in [0, 1, 0, 0, 1] {
        guest.transport.interrupt(queue).used_buffer();
    }
    assert_eq!(guest.messages.take(), [101, 102, 101, 101, 102], "nothing is acknowledged");
}

#[test]
fn s4_1_5_3_queues_may_share_a_vector() {
    let mut guest = Guest::live(V1);
    guest.set_up_queue(1, 16, &RING);
    guest.set(common::QUEUE_MSIX_VECTOR, 0_u16);
    guest.transport.interrupt(1).used_buffer();
    guest.transport.config_changed();
    guest.transport.interrupt(0).used_buffer();
    assert_eq!(guest.messages.take(), [100, 100, 101]);
}

#[test]
fn s4_1_5_4_configuration_changes_send_theirs() {
    let guest = Guest::live(V1);
    guest.transport.config_changed();
    guest.transport.config_changed();
    assert_eq!(guest.messages.take(), [100, 100]);
}

#[test]
fn s4_1_5_3_an_event_without_a_vector_sends_nothing() {
    let mut guest = Guest::live(V1);
    guest.set(common::CONFIG_MSIX_VECTOR, NO_VECTOR);
    guest.set(common::QUEUE_MSIX_VECTOR, NO_VECTOR);
    guest.transport.config_changed();
    guest.transport.interrupt(0).used_buffer();
    guest.messages.none("");
    // Nor later, as of an event that was masked.
    guest.set(common::QUEUE_MSIX_VECTOR, 1_u16);
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![], 0));
}

#[test]
fn what_a_message_does_is_asked_when_it_is_written_and_no_more() {
    let mut guest = Guest::live(V1);
    guest.messages.asked.lock().unwrap().clear();
    guest.transport.interrupt(0).used_buffer();
    guest.mask(1, true);
    guest.mask(1, false);
    guest.set_msix(true, true);
    guest.set_msix(true, false);
    assert_eq!(*guest.messages.asked.lock().unwrap(), [], "it is known");
    guest.mask(1, true);
    guest.set_entry(1, DOORBELL, 7, true);
    assert_eq!(*guest.messages.asked.lock().unwrap(), [], "it may change again");
    guest.mask(1, false);
    assert_eq!(*guest.messages.asked.lock().unwrap(), [(DOORBELL, 7)]);
    guest.messages.take();
    guest.transport.interrupt(0).used_buffer();
    assert_eq!(guest.messages.take(), [7]);
}

#[test]
fn a_message_to_an_address_where_nothing_listens_is_lost() {
    let mut guest = Guest::live(V1);
    guest.set_entry(1, DOORBELL + 4, 101, false);
    guest.transport.interrupt(0).used_buffer();
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![], 0));
    guest.set_entry(1, DOORBELL | 1 << 32, 101, false);
    guest.transport.interrupt(0).used_buffer();
    guest.messages.none("the upper half counts");
    // Also one that was pending.
    guest.mask(1, true);
    guest.transport.interrupt(0).used_buffer();
    guest.mask(1, false);
    assert_eq!(guest.pending_bits(), 0);
    guest.set_entry(1, DOORBELL, 101, false);
    guest.messages.none("it was lost where nothing listened");
}
