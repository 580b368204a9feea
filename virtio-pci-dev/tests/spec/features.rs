//! Features and the status machine, as the common configuration has them (§4.1.4.3).

use virtio_dev::{Ignored, Status, WriteOutcome, feature};

use crate::V1;
use crate::common::{Call, Guest, TestDevice, common};

#[test]
fn s4_1_4_3_1_offered_features_are_read_by_pages_of_32_bits() {
    let mut guest = Guest::placed(TestDevice::default());
    let offered = guest.transport.device_features();
    for (page, bits) in
        [(0_u32, offered as u32), (1, (offered >> 32) as u32), (2, 0), (u32::MAX, 0)]
    {
        guest.set(common::DEVICE_FEATURE_SELECT, page);
        assert_eq!(guest.get::<u32>(common::DEVICE_FEATURE_SELECT), page);
        assert_eq!(guest.get::<u32>(common::DEVICE_FEATURE), bits, "page {page}");
    }
    assert_ne!(offered & V1, 0);
}

#[test]
fn s4_1_4_3_1_the_driver_reads_the_features_that_it_wrote() {
    let mut guest = Guest::placed(TestDevice::default());
    guest.set(common::DEVICE_STATUS, 3_u8);
    let features = V1 | feature::EVENT_IDX | 1;
    guest.offer(features);
    for (page, bits) in [(0_u32, features as u32), (1, (features >> 32) as u32), (2, 0)] {
        guest.set(common::DRIVER_FEATURE_SELECT, page);
        assert_eq!(guest.get::<u32>(common::DRIVER_FEATURE_SELECT), page);
        assert_eq!(guest.get::<u32>(common::DRIVER_FEATURE), bits, "page {page}");
    }
    let refused = WriteOutcome::Ignored(Ignored::FeaturePage);
    assert_eq!(guest.put(common::DRIVER_FEATURE, 1_u32), refused, "there are two pages");
    guest.set(common::DEVICE_STATUS, 11_u8);
    assert_eq!(guest.status(), 11);
    assert_eq!(guest.transport.features(), features);
}

#[test]
fn s4_1_4_3_1_the_driver_reads_the_number_of_queues() {
    for queues in [0_u16, 2, 1025] {
        let device = TestDevice { sizes: vec![2; queues.into()], ..TestDevice::default() };
        assert_eq!(Guest::placed(device).get::<u16>(common::NUM_QUEUES), queues);
    }
}

#[test]
fn s2_1_initialisation_in_order_reaches_driver_ok() {
    let mut guest = Guest::live(V1);
    assert_eq!(guest.queues.calls, [Call::DriverOk, Call::Start(0)]);
    assert_eq!(guest.status(), 15);
    assert!(guest.transport.queue(0).is_some());
}

#[test]
fn s2_2_2_features_that_were_not_offered_are_refused() {
    let mut guest = Guest::placed(TestDevice::default());
    guest.negotiate(V1 | 1 << 20);
    assert_eq!(guest.status(), 3, "FEATURES_OK reads 0");
    let mut guest = Guest::placed(TestDevice::default());
    guest.negotiate(0);
    assert_eq!(guest.status(), 3, "nor without VERSION_1");
}

#[test]
fn s6_2_a_driver_without_access_platform_is_refused_where_addresses_are_the_platforms() {
    let with = |on| Guest::on_host(TestDevice::default(), |builder| builder.access_platform(on));
    let mut guest = with(true);
    guest.negotiate(V1);
    assert_eq!(guest.status(), 3);
    let mut guest = with(true);
    guest.negotiate(V1 | feature::ACCESS_PLATFORM);
    assert_eq!(guest.status(), 11);
    let mut guest = with(false);
    guest.negotiate(V1 | feature::ACCESS_PLATFORM);
    assert_eq!(guest.status(), 3, "not offered");
    let mut guest = Guest::on_host(TestDevice::default(), |builder| builder.order_platform(true));
    guest.negotiate(V1 | feature::ORDER_PLATFORM);
    assert_eq!(guest.status(), 11);
}

#[test]
fn s2_1_2_a_device_that_needs_a_reset_shows_it_and_says_so() {
    let mut guest = Guest::live(V1);
    guest.transport.interrupt(0).needs_reset();
    assert_eq!(guest.status(), 0x4f);
    assert_eq!(guest.messages.take(), [100], "by the configuration's message");
    assert!(guest.transport.status().contains(Status::DEVICE_NEEDS_RESET));
}
