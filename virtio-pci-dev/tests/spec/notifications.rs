//! Available buffer notifications (§4.1.4.4, §4.1.5.2).

use virtio_dev::{Ignored, WriteOutcome, feature};

use crate::V1;
use crate::common::{Guest, RING, TestDevice, common};

fn address(guest: &mut Guest, queue: u16) -> u64 {
    guest.set(common::QUEUE_SELECT, queue);
    let offset: u16 = guest.get(common::QUEUE_NOTIFY_OFF);
    guest.at.notify.offset + u64::from(offset) * guest.at.notify_off_multiplier
}

#[test]
fn s4_1_5_2_the_index_of_a_queue_at_its_address_notifies_it() {
    let mut guest = Guest::live(V1);
    guest.set_up_queue(1, 16, &RING);
    guest.set(common::QUEUE_ENABLE, 1_u16);
    for queue in [0_u16, 1, 0] {
        let at = address(&mut guest, queue);
        assert_eq!(guest.write(at, &queue.to_le_bytes()), WriteOutcome::Notify(queue));
        assert_eq!(guest.queues.calls, [], "that is the caller's to pass on");
    }
}

#[test]
fn s4_1_5_2_with_notification_data_the_driver_writes_32_bits() {
    let host =
        |builder: virtio_pci_dev::PciTransportBuilder<TestDevice>| builder.notification_data(true);
    let mut guest = Guest::on_host(TestDevice::default(), host);
    guest.negotiate(V1 | feature::NOTIFICATION_DATA);
    guest.set_up_queue(1, 16, &RING);
    guest.set(common::QUEUE_ENABLE, 1_u16);
    guest.set(common::DEVICE_STATUS, 15_u8);
    let at = address(&mut guest, 1);
    let data = 0x1234_0001_u32;
    assert_eq!(guest.write(at, &data.to_le_bytes()), WriteOutcome::Notify(1));
}

#[test]
fn a_notification_of_a_queue_that_is_not_enabled_or_not_there_is_ignored() {
    let mut guest = Guest::live(V1);
    let at = address(&mut guest, 1);
    assert_eq!(guest.write(at, &[1, 0]), WriteOutcome::Ignored(Ignored::NoQueue));
    assert_eq!(guest.write(at + 4, &[2, 0]), WriteOutcome::Ignored(Ignored::NoRegister));
}

#[test]
fn a_notification_before_driver_ok_counts() {
    let mut guest = Guest::placed(TestDevice::default());
    guest.negotiate(V1);
    let at = address(&mut guest, 0);
    assert_eq!(guest.write(at, &[0, 0]), WriteOutcome::Done, "each queue is started as notified");
}

#[test]
fn notification_addresses_are_written_whole_and_read_0() {
    let mut guest = Guest::live(V1);
    let at = address(&mut guest, 0);
    for width in [1, 3, 8] {
        let outcome = guest.write(at, &vec![0; width]);
        assert_eq!(outcome, WriteOutcome::Ignored(Ignored::Width), "{width}");
    }
    assert_eq!(guest.write(at + 2, &[0, 0]), WriteOutcome::Ignored(Ignored::NoRegister));
    assert_eq!(guest.read::<u32>(at), 0);
}
