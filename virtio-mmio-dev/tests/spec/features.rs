//! §2.2, §6 feature bits.

use virtio_dev::{Error, Ignored, feature};
use virtio_mmio_dev::{MmioTransport, Register};

use crate::V1;
use crate::common::{Effect, TestDevice, Window};

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
