//! §4.2.2, §2.6 the registers of a queue.

use virtio_dev::{Ignored, feature};
use virtio_mmio_dev::Register;

use crate::V1;
use crate::common::{Effect, RING, TestDevice, Window};

#[test]
fn s4_2_2_queue_size_max_is_0_for_a_queue_that_is_not_there_and_any_selector_is_safe() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1 | feature::RING_RESET);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    for (queue, max) in [(0, 16), (1, 64), (2, 0), (3, 0), (65536, 0), (u32::MAX, 0)] {
        window.set(Register::QueueSel, queue);
        assert_eq!(window.read(Register::QueueSizeMax), max, "queue {queue}");
    }
    let before = window.transport.state();
    for queue in [2, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX] {
        window.set(Register::QueueSel, queue);
        for register in Register::ALL.iter().filter(|r| r.offset() != 0x70 && r.offset() != 0x30) {
            window.set(*register, 1);
            let _ = window.read(*register);
        }
        assert_eq!(window.read(Register::QueueReady), 0);
        assert_eq!(window.read(Register::QueueReset), 0);
    }
    assert_eq!(window.transport.state().queues, before.queues);
}

#[test]
fn s4_2_2_a_queue_of_an_invalid_size_does_not_become_ready() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    for size in [0, 3, 15, 17, 32, 0x8000, 0x1_0000, 0x1_0010, u32::MAX] {
        window.set_up_queue(0, 16, &RING);
        window.set(Register::QueueSize, size);
        window.set(Register::QueueReady, 1);
        assert_eq!(window.read(Register::QueueReady), 0, "size {size}");
    }
    for size in [1, 2, 4, 8, 16] {
        window.set_up_queue(0, size, &RING);
        window.set(Register::QueueReady, 1);
        assert_eq!(window.read(Register::QueueReady), 1, "size {size}");
        window.set(Register::QueueReady, 0);
        assert_eq!(window.read(Register::QueueReady), 0);
    }
}

#[test]
fn s4_2_2_a_queue_that_is_ready_before_the_features_are_final_goes_live_with_them() {
    let mut window = Window::new(TestDevice::default());
    window.set_up_queue(0, 16, &RING);
    let ignored = Effect::Ignored(Ignored::QueueNotReady);
    assert_eq!(window.write(Register::QueueReady, 1), ignored, "there is no driver");
    window.set(Register::Status, 3);
    window.set(Register::QueueReady, 1);
    assert_eq!(window.read(Register::QueueReady), 1);
    assert_eq!(window.transport.queue(0), None);
    window.offer(V1 | feature::EVENT_IDX);
    window.set(Register::Status, 11);
    assert_eq!(window.transport.queue(0), None);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    assert!(window.transport.queue(0).unwrap().event_idx);
}

#[test]
fn s4_2_2_a_ready_queue_keeps_its_size_and_addresses() {
    let mut window = Window::live(V1);
    let before = window.transport.queue(0);
    window.set(Register::QueueSel, 0);
    for register in [
        Register::QueueSize,
        Register::QueueDescLow,
        Register::QueueDescHigh,
        Register::QueueDriverLow,
        Register::QueueDriverHigh,
        Register::QueueDeviceLow,
        Register::QueueDeviceHigh,
    ] {
        window.set(register, 8);
    }
    window.set(Register::QueueReady, 1);
    assert_eq!(window.transport.queue(0), before);
}

#[test]
fn s4_2_2_addresses_are_64_bits_and_opaque() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    let at = crate::common::RingAt {
        desc: 0x8000_0001_2345_6000,
        avail: 0x8000_0001_2345_7000,
        used: u64::MAX,
    };
    window.set_up_queue(1, 64, &at);
    window.set(Register::QueueReady, 1);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    let queue = window.transport.queue(1).unwrap();
    assert_eq!((queue.desc_table, queue.avail_ring, queue.used_ring), (at.desc, at.avail, at.used));
    assert_eq!(window.transport.queue(0), None, "never made ready");
}

#[test]
fn s4_2_2_notify_only_reaches_live_queues() {
    let mut window = Window::live(V1);
    assert_eq!(window.write(Register::QueueNotify, 0), Effect::Notify(0));
    for value in [1, 2, 0x1_0000, u32::MAX] {
        window.set(Register::QueueNotify, value);
    }
}

#[test]
fn s4_2_3_3_notification_data_names_the_queue_in_its_lower_half() {
    let mut window = Window::on_host(TestDevice::default(), |it| it.notification_data(true));
    window.negotiate(V1 | feature::NOTIFICATION_DATA);
    window.set_up_queue(0, 16, &RING);
    window.set(Register::QueueReady, 1);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    assert_eq!(window.write(Register::QueueNotify, 0x1234_0000), Effect::Notify(0));
    window.set(Register::QueueNotify, 0x0001);
}

#[test]
fn s4_2_2_1_queue_ready_0_is_synchronous() {
    let mut window = Window::live(V1);
    window.set(Register::QueueSel, 0);
    assert_eq!(window.write(Register::QueueReady, 0), Effect::QueueStop(0));
    assert_eq!(window.transport.queue(0), None, "not to be served");
    assert_eq!(window.read(Register::QueueReady), 1, "not before it has stopped");
    window.set(Register::QueueNotify, 0);
    window.transport.queue_stopped(0);
    assert_eq!(window.read(Register::QueueReady), 0);
}

#[test]
fn s4_2_2_1_a_stopped_queue_can_be_set_up_again() {
    let mut window = Window::live(V1);
    window.set(Register::QueueSel, 0);
    assert_eq!(window.write(Register::QueueReady, 0), Effect::QueueStop(0));
    window.transport.queue_stopped(0);
    window.set_up_queue(0, 8, &RING);
    assert_eq!(window.write(Register::QueueReady, 1), Effect::QueueReady(0));
    let queue = window.transport.queue(0).unwrap();
    assert_eq!((queue.size, queue.next_avail, queue.next_used), (8, 0, 0));
}

#[test]
fn s2_6_1_queue_reset_reads_1_until_done_and_leaves_defaults() {
    let mut window = Window::live(V1 | feature::RING_RESET);
    window.set(Register::QueueSel, 0);
    window.set(Register::QueueReset, 0);
    assert_eq!(window.write(Register::QueueReset, 1), Effect::QueueStop(0));
    assert_eq!(window.read(Register::QueueReset), 1);
    window.transport.queue_stopped(0);
    assert_eq!(window.read(Register::QueueReset), 0);
    assert_eq!(window.read(Register::QueueReady), 0);
    let queue = &window.transport.state().queues[0];
    assert_eq!((queue.size, queue.desc_table), (16, 0));
    window.set_up_queue(0, 4, &RING);
    assert_eq!(window.write(Register::QueueReady, 1), Effect::QueueReady(0));
}

#[test]
fn s2_6_1_queue_reset_before_driver_ok_is_immediate() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1 | feature::RING_RESET);
    window.set_up_queue(0, 8, &RING);
    window.set(Register::QueueReady, 1);
    window.set(Register::QueueReset, 1);
    let queue = &window.transport.state().queues[0];
    assert_eq!((queue.ready, queue.size, queue.desc_table), (false, 16, 0));
}

#[test]
fn s2_6_1_queue_reset_needs_its_feature() {
    let mut window = Window::live(V1);
    window.set(Register::QueueSel, 0);
    window.set(Register::QueueReset, 1);
    assert_eq!(window.read(Register::QueueReset), 0);
    assert!(window.transport.queue(0).is_some());
}
