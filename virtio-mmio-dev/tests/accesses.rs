//! Any sequence of register accesses, of any offset, width and data, leaves the transport in a
//! state that can be.

mod common;

use proptest::prelude::*;
use virtio_dev::{ControlState, Ignored, Status, feature};
use virtio_mmio_dev::{MmioTransport, Register};

use common::{Effect, TestDevice, Window};

const STEPS: usize = if cfg!(miri) { 16 } else { 200 };

#[derive(Clone, Debug)]
enum Step {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Stopped,
    QueueStopped(u16),
    UsedBuffer,
    ConfigChanged,
    NeedsReset,
}

/// Values that get somewhere: status steps, features, sizes, selectors.
fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => prop::sample::select(vec![0_u32, 1, 2, 3, 8, 11, 15, 16, 64, 128]),
        1 => any::<u32>(),
    ]
}

fn register() -> impl Strategy<Value = u64> {
    // The steps of an initialisation more often, or no sequence would get to the end of it.
    prop_oneof![
        1 => prop::sample::select(Register::ALL).prop_map(Register::offset),
        1 => prop::sample::select(vec![
            Register::Status,
            Register::QueueReady,
            Register::QueueSel,
            Register::DriverFeatures,
            Register::DriverFeaturesSel,
        ])
        .prop_map(Register::offset),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (register(), value()).prop_map(|(at, value)| Step::Write(at, value.to_le_bytes().to_vec())),
        4 => prop::sample::select(vec![3_u32, 11, 15])
            .prop_map(|value| Step::Write(Register::Status.offset(), value.to_le_bytes().to_vec())),
        2 => (0_u64..0x120, prop::collection::vec(any::<u8>(), 0..10)).prop_map(|(at, data)| Step::Write(at, data)),
        1 => (any::<u64>(), prop::collection::vec(any::<u8>(), 0..10)).prop_map(|(at, data)| Step::Write(at, data)),
        2 => (0_u64..0x120, 0_usize..10).prop_map(|(at, width)| Step::Read(at, width)),
        1 => (any::<u64>(), 0_usize..10).prop_map(|(at, width)| Step::Read(at, width)),
        1 => Just(Step::Stopped),
        1 => (0_u16..3).prop_map(Step::QueueStopped),
        1 => Just(Step::UsedBuffer),
        1 => Just(Step::ConfigChanged),
        1 => Just(Step::NeedsReset),
    ]
}

/// What holds in every state.
fn check(window: &Window) {
    let transport = &window.transport;
    let (state, status) = (transport.state(), transport.status());
    let device = transport.device();
    let steps =
        status & (Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK);
    // ACKNOWLEDGE may be left out, and so may FEATURES_OK.
    assert!([0, 2, 10, 14, 6].contains(&(steps.bits() & !1)), "{status:?}");
    let up = status.contains(Status::DRIVER_OK);
    let live = up && !status.contains(Status::FAILED);
    let features = transport.features();
    if up || status.contains(Status::FEATURES_OK) {
        assert_eq!(features & !transport.device_features(), 0);
        assert_eq!(device.accepted, Some(features));
    } else {
        assert_eq!(features, 0);
    }
    if status.contains(Status::FEATURES_OK) {
        assert_ne!(features & feature::VERSION_1, 0);
    }
    assert!(up || state.interrupt_status == 0);
    for (index, queue) in (0..).zip(&state.queues) {
        let max = device.sizes[usize::from(index)];
        assert!(queue.size == 0 || queue.size.is_power_of_two() && queue.size <= max);
        assert!(!queue.ready || queue.size != 0 && status.contains(Status::DRIVER));
        assert!(!queue.stopping || queue.ready && up);
        assert!(!queue.resetting || queue.stopping);
        assert_eq!(
            transport.queue(index).is_some(),
            live && queue.ready && !queue.stopping && !state.reset_pending
        );
    }
    assert_eq!(transport.queue(2), None);
    let restored = MmioTransport::builder(TestDevice::default(), || {}).restore(&state).unwrap();
    assert_eq!(restored.state(), state);
}

/// What an effect says about the state.
fn check_effect(window: &Window, old: &ControlState, effect: Effect) {
    let transport = &window.transport;
    let (before, state) = (old.status, transport.state());
    match effect {
        Effect::None | Effect::ConfigWritten | Effect::Ignored(Ignored::QueueSize) => {}
        Effect::Ignored(why) => assert_eq!(state, *old, "{why}"),
        Effect::Failed => {
            assert!(!before.contains(Status::FAILED));
            assert!(transport.status().contains(Status::FAILED));
        }
        Effect::Activate => {
            assert!(!before.contains(Status::DRIVER_OK));
            assert!(transport.status().contains(Status::DRIVER_OK));
        }
        Effect::QueueReady(index) | Effect::Notify(index) => {
            assert!(transport.queue(index).is_some());
        }
        Effect::QueueStop(index) => assert!(state.queues[usize::from(index)].stopping),
        Effect::Reset => {
            // Done at once if no queue was in service.
            let status = if state.reset_pending { before } else { Status::empty() };
            assert_eq!(transport.status(), status);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 128 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_accesses_leave_a_state_that_can_be(steps in prop::collection::vec(step(), 1..STEPS)) {
        let mut window = Window::new(TestDevice::default());
        let interrupt = window.transport.interrupt(0);
        for step in steps {
            match step {
                Step::Read(at, width) => {
                    let mut data = vec![0xaa; width];
                    window.transport.read(at, &mut data);
                    if at >= 0x10c {
                        assert!(data.iter().all(|byte| *byte == 0));
                    }
                }
                Step::Write(at, data) => {
                    let before = window.transport.state();
                    let effect = window.write_bytes(at, &data);
                    check_effect(&window, &before, effect);
                }
                Step::Stopped => window.stopped(),
                Step::QueueStopped(index) => window.transport.queue_stopped(index),
                Step::UsedBuffer => window.transport.interrupt(0).used_buffer(),
                Step::ConfigChanged => window.transport.config_changed(),
                Step::NeedsReset => window.transport.interrupt(0).needs_reset(),
            }
            check(&window);
        }
        assert_eq!(window.edges(), interrupt.raised());
    }
}
