//! The saved state, and transports made from it.

use virtio_dev::{Error, Positions, Status, feature};
use virtio_mmio_dev::{MmioTransport, Register};

use crate::V1;
use crate::common::{Effect, Recorder, Ring, TestDevice, Window, needs_reset, new_queue, ram};

#[test]
fn what_a_driver_has_set_in_the_device_is_part_of_the_saved_state() {
    let mut window = Window::live(V1);
    assert_eq!(window.write_bytes(0x108, &[0x55]), Effect::ConfigWritten);
    let state = window.transport.state();
    let restored = MmioTransport::builder(TestDevice::default(), || {}).restore(&state).unwrap();
    assert_eq!(restored.device().config, window.transport.device().config);
    assert_eq!(restored.state(), state);
}

#[test]
fn a_queue_that_was_broken_is_not_served_after_a_restore() {
    let memory = ram();
    let mut window = Window::live(V1);
    let config = window.transport.queue(0).unwrap();
    let mut queue = new_queue(&config, &memory, window.transport.interrupt(0));
    let mut ring = Ring::new(&memory, 16);
    ring.offer(16);
    assert!(queue.pop().is_none());
    let Positions { next_avail, next_used, broken } = queue.state();
    let mut state = window.transport.state();
    let saved = &mut state.queues[0];
    (saved.next_avail, saved.next_used, saved.broken) = (next_avail, next_used, broken);

    window.transport =
        MmioTransport::builder(TestDevice::default(), || {}).restore(&state).unwrap();
    window.queues = Recorder::default();
    window.transport.resume(&mut window.queues);
    assert_eq!(window.queues.calls, []);
    assert!(needs_reset(&window));
    assert_eq!(window.transport.state(), state);
    assert_eq!(window.transport.queue(0), None);
    window.set(Register::QueueSel, 0);
    assert_eq!(window.write(Register::QueueReady, 0), Effect::None, "it is not in service");
    assert_eq!(window.write(Register::QueueReady, 1), Effect::QueueReady(0));
    assert!(window.transport.queue(0).is_some(), "set up anew");
}

#[test]
fn a_saved_state_goes_on_where_it_was() {
    let mut window = Window::live(V1 | feature::EVENT_IDX | 1);
    window.transport.interrupt(0).used_buffer();
    window.transport.config_changed();
    window.set(Register::QueueSel, 1);
    let mut state = window.transport.state();
    state.queues[0].next_avail = 7;
    state.queues[0].next_used = 5;

    let edges = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let line = std::sync::Arc::clone(&edges);
    let restored = MmioTransport::builder(TestDevice::default(), move || {
        line.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    })
    .restore(&state)
    .unwrap();
    assert_eq!(restored.state(), state);
    assert_eq!(restored.device().accepted, Some(V1 | feature::EVENT_IDX | 1));
    assert_eq!(restored.features(), window.transport.features());
    let queue = restored.queue(0).unwrap();
    assert_eq!((queue.next_avail, queue.next_used), (7, 5));
    assert_eq!(
        edges.load(std::sync::atomic::Ordering::Relaxed),
        1,
        "pending: the line may not have been raised"
    );
    restored.interrupt(0).used_buffer();
    assert_eq!(restored.interrupt(0).suppressed(), 1, "the bit is still set");

    // Once stopped and set up again, a queue starts over.
    let mut window = Window::new(TestDevice::default());
    window.transport = restored;
    window.transport.resume(&mut window.queues);
    window.set(Register::QueueSel, 0);
    assert_eq!(window.write(Register::QueueReady, 0), Effect::QueueStop(0));
    window.transport.queue_stopped(0);
    assert_eq!(window.write(Register::QueueReady, 1), Effect::QueueReady(0));
    let queue = window.transport.queue(0).unwrap();
    assert_eq!((queue.next_avail, queue.next_used), (0, 0));
}

#[test]
fn a_saved_state_of_another_device_is_refused() {
    let state = Window::live(V1).transport.state();
    let refused = |change: &dyn Fn(&mut virtio_dev::ControlState)| {
        let mut state = state.clone();
        change(&mut state);
        let restored = MmioTransport::builder(TestDevice::default(), || {}).restore(&state);
        matches!(restored, Err(Error::State(_)))
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|state| state.queues.truncate(1)));
    assert!(refused(&|state| state.queues[0].size = 32));
    assert!(refused(&|state| state.queues[0].size = 3));
    assert!(refused(&|state| state.queues[0].size = 0));
    assert!(refused(&|state| state.interrupt_status = 4));
    assert!(refused(&|state| state.status = Status::DRIVER_OK));
    assert!(refused(&|state| state.status = Status::FEATURES_OK));
    assert!(refused(&|state| state.device.push(0)));
    assert!(refused(&|state| state.driver_features |= 1 << 50));
}
