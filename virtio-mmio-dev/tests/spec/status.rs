//! §2.1 the device status field, §3.1 initialisation.

use virtio_dev::{Ignored, Status, feature};
use virtio_mmio_dev::{MmioTransport, Register};

use crate::V1;
use crate::common::{Effect, RING, TestDevice, Window, needs_reset};

#[test]
fn s2_1_initialisation_in_order_reaches_driver_ok() {
    let mut window = Window::live(V1 | feature::EVENT_IDX | 1);
    assert_eq!(window.status(), 15);
    assert_eq!(window.transport.features(), V1 | feature::EVENT_IDX | 1);
    assert_eq!(window.transport.device().accepted, Some(V1 | feature::EVENT_IDX | 1));
    let queue = window.transport.queue(0).unwrap();
    assert_eq!((queue.size, queue.event_idx, queue.indirect), (16, true, false));
    assert_eq!(
        (queue.desc_table, queue.avail_ring, queue.used_ring),
        (RING.desc, RING.avail, RING.used)
    );
}

#[test]
fn a_smaller_queue_remembers_what_it_could_have_been() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    window.set_up_queue(1, 32, &RING);
    window.set(Register::QueueReady, 1);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    let queue = window.transport.queue(1).unwrap();
    assert_eq!((queue.size, queue.size_max), (32, 64));
}

#[test]
fn s2_1_1_a_driver_cannot_clear_status_bits_or_skip_steps() {
    let mut window = Window::new(TestDevice::default());
    for refused in [4, 8, 12, 15, 7, 5, 9] {
        let ignored = Effect::Ignored(Ignored::Status(Status::empty()));
        assert_eq!(window.write(Register::Status, refused), ignored, "{refused}");
        assert_eq!(window.status(), 0, "{refused}");
    }
    window.negotiate(V1);
    for refused in [1, 3, 9, 0x100, 0x1b, 0x2b] {
        window.set(Register::Status, refused);
        assert_eq!(window.status(), 11, "{refused}");
    }
}

#[test]
fn s2_1_acknowledge_is_the_drivers_affair() {
    let mut window = Window::new(TestDevice::default());
    window.set(Register::Status, 2);
    assert_eq!(window.status(), 2);
    window.offer(V1);
    window.set(Register::Status, 10);
    assert_eq!((window.status(), window.transport.features()), (10, V1));
    assert_eq!(window.write(Register::Status, 14), Effect::Activate);
    assert_eq!(window.status(), 14);
    assert_eq!(window.write(Register::Status, 15), Effect::None, "late");
    assert_eq!(window.status(), 15);
}

#[test]
fn s2_1_2_nothing_is_consumed_before_driver_ok_and_an_early_kick_counts() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    window.set_up_queue(0, 16, &RING);
    window.set(Register::QueueReady, 1);
    assert_eq!(window.read(Register::QueueReady), 1);
    assert_eq!(window.transport.queue(0), None, "not to be served yet");
    window.set(Register::QueueNotify, 0);
    // Activation is a notification of every queue, so the early kick is in it.
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    assert!(window.transport.queue(0).is_some());
    assert_eq!(window.write(Register::QueueNotify, 0), Effect::Notify(0));
}

#[test]
fn s2_1_2_no_notification_before_driver_ok() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    window.transport.interrupt(0).used_buffer();
    window.transport.config_changed();
    assert_eq!(window.read(Register::InterruptStatus), 0);
    assert_eq!(window.edges(), 0);
}

#[test]
fn s2_1_2_needs_reset_comes_with_a_config_interrupt_once_the_driver_is_up() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    window.transport.interrupt(0).needs_reset();
    assert_eq!(window.status(), 11 | 64);
    assert_eq!((window.read(Register::InterruptStatus), window.edges()), (0, 0));

    let mut window = Window::live(V1);
    window.transport.interrupt(0).needs_reset();
    assert_eq!(window.status(), 15 | 64);
    assert_eq!((window.read(Register::InterruptStatus), window.edges()), (2, 1));
    window.reset();
    assert_eq!(window.status(), 0);
}

#[test]
fn s2_1_2_needs_reset_survives_the_drivers_status_writes() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    window.transport.interrupt(0).needs_reset();
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    assert!(needs_reset(&window));
}

#[test]
fn s2_1_failed_leaves_only_the_reset() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    assert_eq!(window.write(Register::Status, 128), Effect::Failed);
    assert_eq!(window.status(), 11 | 128, "no bit is lost");
    window.set(Register::Status, 15 | 128);
    assert_eq!(window.status(), 11 | 128);
    window.set_up_queue(0, 16, &RING);
    window.set(Register::QueueReady, 1);
    assert_eq!(window.read(Register::QueueReady), 0);
    window.reset();
    assert_eq!(window.status(), 0);
}

#[test]
fn s2_1_after_failed_no_queue_is_served_and_no_interrupt_raised() {
    let mut window = Window::live(V1 | feature::RING_RESET);
    let interrupt = window.transport.interrupt(0);
    assert_eq!(window.write(Register::Status, 15 | 128), Effect::Failed);
    assert_eq!(window.transport.queue(0), None);
    assert_eq!(
        window.write(Register::QueueNotify, 0),
        Effect::Ignored(Ignored::NoQueue),
        "a kick finds nobody"
    );
    window.set_up_queue(1, 16, &RING);
    assert_eq!(
        window.write(Register::QueueReady, 1),
        Effect::Ignored(Ignored::QueueNotReady),
        "no queue starts"
    );
    interrupt.used_buffer();
    interrupt.config_change();
    interrupt.needs_reset();
    assert_eq!((window.read(Register::InterruptStatus), window.edges()), (0, 0));
    // It may still take its queues back before it resets the device.
    window.set(Register::QueueSel, 0);
    assert_eq!(window.write(Register::QueueReady, 0), Effect::QueueStop(0));
    window.transport.queue_stopped(0);
    assert_eq!(window.read(Register::QueueReady), 0);
    // Nor does a restored one serve it.
    let state = window.transport.state();
    let restored = MmioTransport::builder(TestDevice::default(), || {}).restore(&state).unwrap();
    assert_eq!(restored.queue(0), None);
    window.reset();
    assert_eq!(window.status(), 0);
}
