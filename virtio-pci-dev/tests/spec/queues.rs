//! The registers of a queue (§4.1.4.3).

use virtio_dev::{Ignored, PendingWrite, WriteOutcome, feature};

use crate::V1;
use crate::common::{Call, Guest, RING, TestDevice, common};

const RESET_0: WriteOutcome = WriteOutcome::Pending(PendingWrite::QueueStop(0));

#[test]
fn s4_1_4_3_1_a_queue_has_its_largest_size_after_a_reset_and_another_is_not_there() {
    let mut guest = Guest::placed(TestDevice::default());
    for (queue, size) in [(0_u16, 16_u16), (1, 64), (2, 0), (u16::MAX, 0)] {
        guest.set(common::QUEUE_SELECT, queue);
        assert_eq!(guest.get::<u16>(common::QUEUE_SELECT), queue);
        assert_eq!(guest.get::<u16>(common::QUEUE_SIZE), size, "queue {queue}");
        assert_eq!(guest.get::<u16>(common::QUEUE_ENABLE), 0);
        assert_eq!(guest.get::<u16>(common::QUEUE_RESET), 0);
    }
    guest.set(common::QUEUE_SELECT, 2_u16);
    for (field, value) in [(common::QUEUE_SIZE, 8_u16), (common::QUEUE_ENABLE, 1)] {
        assert_eq!(guest.put(field, value), WriteOutcome::Ignored(Ignored::NoQueue));
    }
    let refused = WriteOutcome::Ignored(Ignored::NoQueue);
    assert_eq!(guest.put(common::QUEUE_MSIX_VECTOR, 0_u16), refused);
    assert_eq!(guest.get::<u16>(common::QUEUE_MSIX_VECTOR), 0xffff);
    assert_eq!(guest.get::<u64>(common::QUEUE_DESC), 0);
    assert_eq!(guest.get::<u16>(common::QUEUE_NOTIFY_OFF), 0);
    assert_eq!(guest.get::<u16>(common::QUEUE_NOTIFY_DATA), 0);
}

#[test]
fn s4_1_4_3_2_the_driver_makes_a_queue_smaller() {
    let mut guest = Guest::live(V1);
    guest.set_up_queue(1, 8, &RING);
    assert_eq!(guest.get::<u16>(common::QUEUE_SIZE), 8);
    assert_eq!(guest.put(common::QUEUE_ENABLE, 1_u16), WriteOutcome::Done);
    assert_eq!(guest.queues.calls, [Call::Start(1)]);
    let queue = guest.transport.queue(1).unwrap();
    assert_eq!((queue.size, queue.size_max), (8, 64));
    assert_eq!(
        (queue.desc_table, queue.avail_ring, queue.used_ring),
        (RING.desc, RING.avail, RING.used)
    );
    assert_eq!(guest.get::<u16>(common::QUEUE_ENABLE), 1);
    let refused = WriteOutcome::Ignored(Ignored::QueueIsReady);
    assert_eq!(guest.put(common::QUEUE_SIZE, 4_u16), refused, "an enabled queue keeps its size");
    assert_eq!(guest.put(common::QUEUE_DESC, 0_u64), refused);
}

#[test]
fn s4_1_4_3_2_a_size_that_is_no_power_of_two_or_too_large_keeps_the_queue_from_being_enabled() {
    let mut guest = Guest::live(V1);
    for size in [0_u16, 3, 128, 0xffff] {
        guest.set_up_queue(1, 64, &RING);
        assert_eq!(guest.put(common::QUEUE_SIZE, size), WriteOutcome::Ignored(Ignored::QueueSize));
        let refused = WriteOutcome::Ignored(Ignored::QueueNotReady);
        assert_eq!(guest.put(common::QUEUE_ENABLE, 1_u16), refused, "{size}");
    }
}

#[test]
fn s4_1_4_3_2_a_write_of_0_to_queue_enable_does_nothing() {
    let mut guest = Guest::live(V1);
    for value in [0_u16, 2, 0xffff] {
        let refused = WriteOutcome::Ignored(Ignored::QueueEnable);
        assert_eq!(guest.put(common::QUEUE_ENABLE, value), refused);
        assert_eq!(guest.queues.calls, []);
    }
    assert_eq!(guest.get::<u16>(common::QUEUE_ENABLE), 1);
    assert!(guest.transport.queue(0).is_some());
}

#[test]
fn s4_1_4_3_1_a_queue_that_is_reset_reads_so_until_it_has_stopped_and_is_disabled_then() {
    let mut guest = Guest::live(V1 | feature::RING_RESET);
    assert_eq!(guest.put(common::QUEUE_RESET, 1_u16), RESET_0);
    assert_eq!(guest.queues.calls, [Call::Stop(0)]);
    assert_eq!(guest.get::<u16>(common::QUEUE_RESET), 1);
    guest.transport.queue_stopped(0);
    assert!(!guest.transport.is_pending(PendingWrite::QueueStop(0)));
    let fields = [common::QUEUE_RESET, common::QUEUE_ENABLE];
    assert_eq!(fields.map(|field| guest.get::<u16>(field)), [0, 0]);
    // Set up anew, as Linux does it.
    guest.set_up_queue(0, 8, &RING);
    guest.set(common::QUEUE_MSIX_VECTOR, 1_u16);
    assert_eq!(guest.put(common::QUEUE_ENABLE, 1_u16), WriteOutcome::Done);
    assert_eq!(guest.queues.calls, [Call::Start(0)]);
    assert_eq!(guest.get::<u16>(common::QUEUE_RESET), 0);
}

#[test]
fn s2_6_1_1_a_queue_that_is_reset_notifies_no_more() {
    for at_once in [false, true] {
        let mut guest = Guest::live(V1 | feature::RING_RESET);
        guest.queues.stops_at_once = at_once;
        let interrupt = guest.transport.interrupt(0);
        let outcome = guest.put(common::QUEUE_RESET, 1_u16);
        assert_eq!(outcome, if at_once { WriteOutcome::Done } else { RESET_0 });
        assert_eq!(guest.get::<u16>(common::QUEUE_MSIX_VECTOR), 0xffff);
        interrupt.used_buffer();
        guest.messages.none("");
        assert_eq!(guest.get::<u16>(common::CONFIG_MSIX_VECTOR), 0, "that one stays");
    }
}

#[test]
fn s2_6_1_without_ring_reset_a_queue_is_not_reset() {
    let mut guest = Guest::live(V1);
    let refused = WriteOutcome::Ignored(Ignored::QueueReset);
    assert_eq!(guest.put(common::QUEUE_RESET, 1_u16), refused);
    assert_eq!(guest.get::<u16>(common::QUEUE_MSIX_VECTOR), 1, "its vector stays");
    let mut guest = Guest::live(V1 | feature::RING_RESET);
    assert_eq!(guest.put(common::QUEUE_RESET, 0_u16), WriteOutcome::Done);
    assert_eq!(guest.get::<u16>(common::QUEUE_MSIX_VECTOR), 1, "0 resets nothing");
}
