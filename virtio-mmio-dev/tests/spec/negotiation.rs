//! §2.1 device status, §2.2 features, §3.1 initialisation.

use virtio_mmio_dev::{
    Error, Ignored, MmioTransport, Positions, Register, Status, TransportState, feature,
};

use crate::common::{
    Effect, RING, Recorder, Ring, TestDevice, Window, needs_reset, new_queue, ram,
};

const V1: u64 = feature::VERSION_1;

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
fn s3_1_1_features_that_a_driver_does_not_report_are_judged_at_driver_ok() {
    let start = |features, platform| {
        let mut window = Window::on_host(TestDevice::default(), |it| it.access_platform(platform));
        window.set(Register::Status, 3);
        window.offer(features);
        let effect = window.write(Register::Status, 7);
        (effect, window)
    };
    let (effect, mut window) = start(feature::EVENT_IDX | 1, false);
    assert_eq!((effect, window.status()), (Effect::Activate, 7));
    assert_eq!(window.transport.features(), feature::EVENT_IDX | 1);
    assert_eq!(window.transport.device().accepted, Some(feature::EVENT_IDX | 1));
    window.offer(V1);
    assert_eq!(window.transport.features(), feature::EVENT_IDX | 1, "they are final");
    for (features, platform) in [(4, false), (1 << 50, false), (1, true), (8, false)] {
        let (effect, mut window) = start(features, platform);
        assert_eq!(effect, Effect::Ignored(Ignored::FeaturesRefused), "{features:#x}");
        assert_eq!(window.status(), 3);
        assert_eq!(
            (window.transport.features(), window.transport.driver_features()),
            (0, features)
        );
    }
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
    window.transport.interrupt().used_buffer();
    window.transport.config_changed();
    assert_eq!(window.read(Register::InterruptStatus), 0);
    assert_eq!(window.edges(), 0);
}

#[test]
fn s2_1_2_needs_reset_comes_with_a_config_interrupt_once_the_driver_is_up() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    window.transport.interrupt().needs_reset();
    assert_eq!(window.status(), 11 | 64);
    assert_eq!((window.read(Register::InterruptStatus), window.edges()), (0, 0));

    let mut window = Window::live(V1);
    window.transport.interrupt().needs_reset();
    assert_eq!(window.status(), 15 | 64);
    assert_eq!((window.read(Register::InterruptStatus), window.edges()), (2, 1));
    window.reset();
    assert_eq!(window.status(), 0);
}

#[test]
fn s2_1_2_needs_reset_survives_the_drivers_status_writes() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    window.transport.interrupt().needs_reset();
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
    let interrupt = window.transport.interrupt();
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

#[test]
fn s2_2_2_features_ok_does_not_stick_for_a_feature_not_offered() {
    for bit in 0..64 {
        let mut window = Window::new(TestDevice::default());
        let asked = V1 | 1 << bit;
        let (offered, refused) =
            (window.transport.device_features(), window.transport.device().refused);
        let valid = asked & !offered == 0 && asked & refused == 0;
        window.negotiate(asked);
        assert_eq!(window.status() == 11, valid, "bit {bit}");
        assert_eq!(window.transport.driver_features(), asked);
        assert_eq!(window.transport.features(), if valid { asked } else { 0 });
        assert_eq!(window.transport.device().accepted.is_some(), valid);
    }
}

#[test]
fn s2_2_2_a_refused_driver_may_try_again() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1 | 4);
    assert_eq!(window.status(), 3);
    window.offer(V1 | 1);
    window.set(Register::Status, 11);
    assert_eq!(window.status(), 11);
    assert_eq!(window.transport.features(), V1 | 1, "the 4 is gone");
}

#[test]
fn s6_2_version_1_must_be_taken() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(1);
    assert_eq!(window.status(), 3);
}

#[test]
fn s6_2_access_platform_must_be_taken_where_the_host_offers_it() {
    let window = || Window::on_host(TestDevice::default(), |it| it.access_platform(true));
    let mut without = window();
    without.negotiate(V1);
    assert_eq!(without.status(), 3);
    let mut with = window();
    with.negotiate(V1 | feature::ACCESS_PLATFORM);
    assert_eq!(with.status(), 11);
    let state = with.transport.state();
    let restored = MmioTransport::builder(TestDevice::default(), || {}).restore(&state);
    assert!(matches!(restored, Err(Error::State(_))), "another host");
}

#[test]
fn s6_what_the_transport_offers_does_not_depend_on_the_device() {
    let plain = || TestDevice { features: 1, ..TestDevice::default() };
    let offered = |window: Window| window.transport.device_features();
    let own = V1 | feature::RING_RESET | 1;
    assert_eq!(offered(Window::new(plain())), own);
    let on = Window::on_host(plain(), |it| {
        it.access_platform(true).order_platform(true).notification_data(true)
    });
    assert_eq!(offered(on), own | 1 << 33 | 1 << 36 | 1 << 38);
    let off = Window::on_host(plain(), |it| {
        let it = it.access_platform(true).order_platform(true).notification_data(true);
        it.access_platform(false).order_platform(false).notification_data(false)
    });
    assert_eq!(offered(off), own);
}

#[test]
fn s6_2_a_driver_may_do_without_order_platform_and_notification_data() {
    let host = |features| {
        let mut window = Window::on_host(TestDevice::default(), |it| {
            it.order_platform(true).notification_data(true)
        });
        window.negotiate(features);
        window.status()
    };
    let both = feature::ORDER_PLATFORM | feature::NOTIFICATION_DATA;
    assert_eq!((host(V1), host(V1 | both)), (11, 11));
}

#[test]
fn s2_2_1_features_are_final_after_features_ok() {
    let mut window = Window::new(TestDevice::default());
    window.negotiate(V1);
    window.offer(V1 | 1);
    assert_eq!(window.transport.features(), V1);
}

#[test]
fn s4_2_2_a_renegotiation_replaces_the_features_and_never_adds_to_them() {
    let mut window = Window::new(TestDevice::default());
    window.offer(0xffff_ffff_ffff_ffff);
    window.negotiate(V1 | 2);
    assert_eq!(window.transport.features(), V1 | 2);
    window.reset();
    window.set(Register::Status, 1);
    window.set(Register::Status, 3);
    window.set(Register::DriverFeaturesSel, 1);
    window.set(Register::DriverFeatures, 1);
    window.set(Register::Status, 11);
    assert_eq!(window.transport.features(), V1, "page 0 did not survive");
}

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
    let state = TransportState {
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
    let stale = window.transport.interrupt();
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
    window.transport.interrupt().used_buffer();
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

#[test]
fn a_device_that_cannot_be_is_refused() {
    let new = |device| MmioTransport::new(device, || {}).map(|_| ()).unwrap_err();
    let device = TestDevice::default;
    for size in [0, 3, 32769] {
        assert_eq!(
            new(TestDevice { sizes: vec![8, size], ..device() }),
            Error::QueueSize { index: 1, size }
        );
    }
    assert_eq!(new(TestDevice { sizes: vec![1; 65536], ..device() }), Error::TooManyQueues(65536));
}

#[test]
fn a_device_offers_of_the_rings_and_the_transport_only_what_is_its_own() {
    // Virtio 1.2 §6: the device's are INDIRECT_DESC, EVENT_IDX and IN_ORDER. The rest is the
    // transport's, or not implemented, or undefined.
    for bit in 0..64 {
        let device = TestDevice { features: 1 << bit, ..TestDevice::default() };
        let refused = MmioTransport::new(device, || {}).map(|_| ()).err();
        let foreign = (24..50).contains(&bit) && ![28, 29, 35].contains(&bit);
        let wanted = foreign.then_some(Error::UnsupportedFeatures(1 << bit));
        assert_eq!(refused, wanted, "bit {bit}");
    }
}

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
    let mut queue = new_queue(&config, &memory, window.transport.interrupt());
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
    window.transport.interrupt().used_buffer();
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
    restored.interrupt().used_buffer();
    assert_eq!(restored.interrupt().suppressed(), 1, "the bit is still set");

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
    let refused = |change: &dyn Fn(&mut virtio_mmio_dev::TransportState)| {
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
