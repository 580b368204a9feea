//! How the transport starts and stops the queues.

use virtio_dev::{Ignored, PendingWrite, Status, WriteOutcome, feature};
use virtio_mmio_dev::{MmioTransport, Register};

use crate::V1;
use crate::common::{Call, Effect, RING, Recorder, TestDevice, Window};

/// A live device with both queues in service.
fn two_queues() -> Window {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    for index in [0, 1] {
        window.set_up_queue(index, 16, &RING);
        window.set(Register::QueueReady, 1);
    }
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    assert_eq!(window.queues.calls, [Call::DriverOk, Call::Start(0), Call::Start(1)]);
    window
}

fn write(window: &mut Window, register: Register, value: u32) -> WriteOutcome {
    window.queues.calls.clear();
    window.transport.write(register.offset(), &value.to_le_bytes(), &mut window.queues)
}

const RESET: WriteOutcome = WriteOutcome::Pending(PendingWrite::Reset);

#[test]
fn s2_4_a_reset_is_done_when_the_last_queue_has_stopped() {
    let mut window = two_queues();
    assert_eq!(write(&mut window, Register::Status, 0), RESET);
    assert_eq!(window.queues.calls, [Call::Stop(0), Call::Stop(1)]);
    assert_eq!(write(&mut window, Register::Status, 0), RESET, "of another vCPU");
    assert_eq!(window.queues.calls, [], "they drain already");
    window.transport.queue_stopped(1);
    assert!(window.transport.is_pending(PendingWrite::Reset));
    assert_eq!((window.status(), window.transport.device().resets), (15, 0));
    window.transport.queue_stopped(0);
    assert!(!window.transport.is_pending(PendingWrite::Reset));
    assert_eq!((window.status(), window.transport.device().resets), (0, 1));
}

#[test]
fn s2_4_a_reset_that_waits_for_no_queue_is_done_at_once() {
    let mut window = two_queues();
    window.queues.stops_at_once = true;
    assert_eq!(write(&mut window, Register::Status, 0), WriteOutcome::Done);
    assert_eq!(window.queues.calls, [Call::Stop(0), Call::Stop(1)]);
    assert_eq!((window.status(), window.transport.device().resets), (0, 1));
    assert_eq!(write(&mut window, Register::Status, 0), WriteOutcome::Done);
    assert_eq!(window.queues.calls, []);
    window.negotiate(V1);
    assert_eq!(write(&mut window, Register::Status, 0), WriteOutcome::Done);
    assert_eq!(window.queues.calls, [], "none was in service");
}

#[test]
fn s4_2_2_1_each_queue_that_is_stopped_is_waited_for_by_itself() {
    let mut window = two_queues();
    for index in [0, 1] {
        window.set(Register::QueueSel, index.into());
        let pending = WriteOutcome::Pending(PendingWrite::QueueStop(index));
        assert_eq!(write(&mut window, Register::QueueReady, 0), pending);
        assert_eq!(window.queues.calls, [Call::Stop(index)]);
        assert_eq!(write(&mut window, Register::QueueReady, 0), pending, "of another vCPU");
        assert_eq!(window.queues.calls, []);
        assert_eq!(window.read(Register::QueueReady), 1);
    }
    window.transport.queue_stopped(1);
    assert!(window.transport.is_pending(PendingWrite::QueueStop(0)));
    assert!(!window.transport.is_pending(PendingWrite::QueueStop(1)));
    assert_eq!(window.read(Register::QueueReady), 0);
    // The one that has stopped may start again meanwhile.
    window.set_up_queue(1, 16, &RING);
    assert_eq!(write(&mut window, Register::QueueReady, 1), WriteOutcome::Done);
    assert_eq!(window.queues.calls, [Call::Start(1)]);
    window.set(Register::QueueSel, 0);
    assert_eq!(window.read(Register::QueueReady), 1);
}

#[test]
fn a_reset_while_a_queue_drains_is_done_with_the_queue() {
    let mut window = two_queues();
    window.set(Register::QueueSel, 0);
    let stop = PendingWrite::QueueStop(0);
    assert_eq!(write(&mut window, Register::QueueReady, 0), WriteOutcome::Pending(stop));
    assert_eq!(write(&mut window, Register::Status, 0), RESET);
    assert_eq!(window.queues.calls, [Call::Stop(1)], "the other drains already");
    window.transport.queue_stopped(1);
    assert!(window.transport.is_pending(stop) && window.transport.is_pending(PendingWrite::Reset));
    window.transport.queue_stopped(0);
    assert!(!window.transport.is_pending(stop));
    assert!(!window.transport.is_pending(PendingWrite::Reset));
    assert_eq!(window.status(), 0);
}

#[test]
fn s2_1_failed_is_answered_while_queues_drain_and_the_reset_waits_for_them() {
    let mut window = two_queues();
    assert_eq!(write(&mut window, Register::Status, 143), WriteOutcome::Done);
    assert_eq!(window.queues.calls, [Call::Failed, Call::Stop(0), Call::Stop(1)]);
    window.transport.queue_stopped(0);
    assert_eq!(window.status(), 143);
    assert_eq!(write(&mut window, Register::Status, 0), RESET);
    assert_eq!(window.queues.calls, []);
    window.transport.queue_stopped(1);
    assert_eq!(window.status(), 0);
}

#[test]
fn s2_6_1_a_reset_queue_that_was_never_ready_has_its_defaults() {
    let mut window = Window::live(V1 | feature::RING_RESET);
    window.set_up_queue(1, 8, &RING);
    assert_eq!(write(&mut window, Register::QueueReset, 1), WriteOutcome::Done);
    assert_eq!(window.queues.calls, []);
    let queue = &window.transport.state().queues[1];
    assert_eq!((queue.size, queue.desc_table, queue.resetting), (64, 0, false));
}

#[test]
fn a_queue_that_does_not_drain_cannot_have_stopped() {
    let mut window = two_queues();
    for index in [0, 1, 2, u16::MAX] {
        window.transport.queue_stopped(index);
    }
    assert!(window.transport.queue(0).is_some());
    assert_eq!(write(&mut window, Register::Status, 0), RESET);
    assert_eq!(window.queues.calls, [Call::Stop(0), Call::Stop(1)], "both in service till now");
}

fn restored(state: &virtio_dev::ControlState) -> Window {
    let mut window = Window::new(TestDevice::default());
    window.transport = MmioTransport::builder(TestDevice::default(), || {}).restore(state).unwrap();
    window
}

#[test]
fn a_restored_transport_has_its_queues_in_service_when_it_is_resumed() {
    let mut window = restored(&two_queues().transport.state());
    window.transport.resume(&mut window.queues);
    assert_eq!(window.queues.calls, [Call::Start(0), Call::Start(1)]);
    window.queues.calls.clear();
    window.transport.resume(&mut window.queues);
    assert_eq!(window.queues.calls, [], "once");
    assert_eq!(write(&mut window, Register::Status, 0), RESET);
}

#[test]
fn a_reset_or_stop_that_was_pending_is_done_when_the_restored_transport_is_resumed() {
    let mut window = two_queues();
    window.set(Register::QueueSel, 0);
    let _ = write(&mut window, Register::QueueReady, 0);
    let mut stopped = restored(&window.transport.state());
    assert_eq!(stopped.transport.queue(0), None);
    stopped.transport.resume(&mut stopped.queues);
    assert_eq!(stopped.queues.calls, [Call::Start(1)]);
    assert_eq!(stopped.read(Register::QueueReady), 0);
    // The driver's write, executed again.
    assert_eq!(write(&mut stopped, Register::QueueReady, 0), WriteOutcome::Done);

    let _ = write(&mut window, Register::Status, 0);
    let mut reset = restored(&window.transport.state());
    assert_eq!(reset.transport.status(), Status::from_bits_retain(15));
    reset.transport.resume(&mut reset.queues);
    assert_eq!(reset.queues.calls, []);
    assert_eq!((reset.status(), reset.transport.device().resets), (0, 1));
    assert_eq!(write(&mut reset, Register::Status, 0), WriteOutcome::Done);
}

#[test]
fn a_reset_or_stop_that_was_pending_is_done_by_the_write_executed_again() {
    let mut window = two_queues();
    window.set(Register::QueueSel, 0);
    let _ = write(&mut window, Register::QueueReady, 0);
    let mut again = restored(&window.transport.state());
    assert_eq!(write(&mut again, Register::QueueReady, 0), WriteOutcome::Done);
    assert_eq!(again.read(Register::QueueReady), 0);

    let _ = write(&mut window, Register::Status, 0);
    let mut again = restored(&window.transport.state());
    let ignored = WriteOutcome::Ignored(Ignored::ResetPending);
    assert_eq!(write(&mut again, Register::Status, 143), ignored);
    assert_eq!(write(&mut again, Register::Status, 0), WriteOutcome::Done);
    assert_eq!(again.status(), 0);
}

#[test]
fn queues_are_told_of_the_configuration_that_was_written_and_of_no_other_write() {
    let mut window = two_queues();
    let mut write = |offset, data: &[u8]| {
        let mut queues = Recorder::default();
        let _ = window.transport.write(offset, data, &mut queues);
        queues.calls
    };
    assert_eq!(write(0x108, &[0x55]), [Call::ConfigWritten]);
    assert_eq!(write(0x104, &[0x55]), []);
    assert_eq!(write(Register::QueueNotify.offset(), &[0; 4]), []);
}
