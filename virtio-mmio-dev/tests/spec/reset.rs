//! §2.4 device reset.

use virtio_dev::{ControlState, Ignored, Status};
use virtio_mmio_dev::{MmioTransport, Register};

use crate::V1;
use crate::common::{Effect, TestDevice, Window};

#[test]
fn s2_4_status_reads_0_only_when_the_reset_is_done() {
    let mut window = Window::live(V1);
    assert_eq!(window.write(Register::Status, 0), Effect::Reset);
    assert_eq!(window.status(), 15);
    assert_eq!(window.transport.queue(0), None, "nothing is to be started any more");
    for (register, value) in [
        (Register::Status, 15),
        (Register::QueueNotify, 0),
        (Register::QueueReady, 0),
        (Register::QueueReset, 1),
        (Register::DriverFeatures, 1),
    ] {
        let effect = window.write(register, value);
        let repeated = register == Register::Status;
        let ignored = Effect::Ignored(Ignored::ResetPending);
        assert_eq!(effect, if repeated { Effect::None } else { ignored }, "{register:?}");
    }
    let effect = window.write_bytes(0x108, &[1]);
    assert_eq!(effect, Effect::Ignored(Ignored::ResetPending));
    assert_eq!(window.write(Register::Status, 0), Effect::Reset, "again");
    assert_eq!(window.transport.device().resets, 0);
    window.stopped();
    window.stopped();
    assert_eq!(window.status(), 0);
    assert_eq!(window.transport.device().resets, 1);
}

#[test]
fn s2_4_a_device_under_reset_cannot_go_live() {
    let mut window = Window::live(V1);
    let state = ControlState {
        status: Status::from_bits_retain(11),
        reset_pending: true,
        ..window.transport.state()
    };
    window.transport =
        MmioTransport::builder(TestDevice::default(), || {}).restore(&state).unwrap();
    let ignored = Effect::Ignored(Ignored::ResetPending);
    assert_eq!(window.write(Register::Status, 15), ignored);
    assert_eq!(window.status(), 11);
}

#[test]
fn s2_4_1_a_reset_clears_everything_and_then_there_is_silence() {
    let mut window = Window::live(V1);
    let stale = window.transport.interrupt(0);
    stale.used_buffer();
    stale.config_change();
    assert_eq!((window.read(Register::InterruptStatus), window.edges()), (3, 2));
    window.reset();

    stale.used_buffer();
    stale.config_change();
    stale.needs_reset();
    assert_eq!(window.read(Register::InterruptStatus), 0);
    assert_eq!(window.read(Register::QueueReady), 0);
    assert_eq!(window.status(), 0);
    assert_eq!(window.edges(), 2);

    // Nor does it reach the next run of the device.
    window.negotiate(V1);
    assert_eq!(window.write(Register::Status, 15), Effect::Activate);
    stale.used_buffer();
    stale.needs_reset();
    assert_eq!((window.status(), window.read(Register::InterruptStatus)), (15, 0));
    assert_eq!(window.edges(), 2);
    window.transport.interrupt(0).used_buffer();
    assert_eq!((window.read(Register::InterruptStatus), window.edges()), (1, 3));
}

#[test]
fn s2_4_1_a_reset_leaves_a_state_like_new() {
    let mut window = Window::live(V1 | 1);
    window.set(Register::QueueSel, 1);
    window.set(Register::ShmSel, 1);
    window.set(Register::DeviceFeaturesSel, 1);
    let generation = window.read(Register::ConfigGeneration);
    window.reset();
    let mut fresh = Window::new(TestDevice::default()).transport.state();
    fresh.config_generation = generation;
    assert_eq!(window.transport.state(), fresh);
}
