//! Where the structures are (§4.1.4).

use crate::common::{Guest, TestDevice, common};

#[test]
fn s4_1_4_each_structure_is_in_the_list() {
    let guest = Guest::new(TestDevice::default());
    let ids: Vec<u8> = guest.at.list.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids.iter().filter(|id| **id == 0x11).count(), 1, "MSI-X");
    assert_eq!(ids.iter().filter(|id| **id == 0x09).count(), 5, "virtio");
    assert_ne!(guest.at.window, 0, "s4.1.4.9.1: the window is");
    for (offset, _) in &guest.at.list {
        assert_eq!(offset % 4, 0);
    }
}

#[test]
fn s4_1_4_capabilities_are_as_long_as_they_say_and_do_not_overlap() {
    let mut guest = Guest::new(TestDevice::default());
    let mut list = guest.at.list.clone();
    list.sort_unstable();
    let mut end = 0x40;
    for (offset, id) in list {
        assert!(offset >= end, "{offset:#x}");
        let len = if id == 0x11 {
            12
        } else {
            let (len, kind): (u8, u8) = (guest.config(offset + 2), guest.config(offset + 3));
            assert_eq!(len, if matches!(kind, 2 | 5) { 20 } else { 16 }, "cfg_type {kind}");
            assert_eq!(guest.config::<u8>(offset + 4), 0, "BAR 0");
            assert_eq!(guest.config::<u8>(offset + 5), 0, "id");
            u16::from(len)
        };
        end = offset + len;
    }
    assert!(end <= 256);
}

#[test]
fn s4_1_4_the_structures_are_in_the_bar_aligned_and_apart() {
    for queues in [1, 3, 64, 1023] {
        let device = TestDevice { sizes: vec![2; queues], ..TestDevice::default() };
        let guest = Guest::new(device);
        let at = &guest.at;
        let device = at.device.unwrap();
        let vectors = u64::from(at.vectors);
        assert_eq!(at.table % 8 + at.pending_bits % 8, 0, "both in BAR 0");
        let mut parts = vec![
            (at.common.offset, at.common.len, 4),
            (at.notify.offset, at.notify.len, 4),
            (at.isr.offset, at.isr.len, 1),
            (device.offset, device.len, 4),
            (at.table, vectors * 16, 0x1000),
            (at.pending_bits, vectors.div_ceil(64) * 8, 0x1000),
        ];
        parts.sort_unstable();
        for pair in parts.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        for (offset, len, align) in parts {
            assert_eq!(offset % align, 0);
            assert!(offset + len <= guest.transport.bar_len());
        }
        assert_eq!(usize::from(at.vectors), queues + 1, "one for configuration changes");
    }
}

#[test]
fn s4_1_4_3_the_common_configuration_has_its_last_field_in_it() {
    let guest = Guest::new(TestDevice::default());
    assert!(guest.at.common.len >= common::QUEUE_RESET + 2);
}

#[test]
fn s4_1_4_4_1_each_queue_has_a_notification_address_in_the_structure() {
    for queues in [1_u16, 3, 1023] {
        let device = TestDevice { sizes: vec![2; queues.into()], ..TestDevice::default() };
        let mut guest = Guest::new(device);
        let multiplier = guest.at.notify_off_multiplier;
        assert!(multiplier == 0 || multiplier > 1 && multiplier.is_power_of_two());
        let mut before = None;
        for queue in 0..queues {
            guest.set(common::QUEUE_SELECT, queue);
            let offset = u64::from(guest.get::<u16>(common::QUEUE_NOTIFY_OFF)) * multiplier;
            assert!(guest.at.notify.len >= offset + 4, "room for notification data");
            assert!(before < Some(offset), "an address of its own");
            before = Some(offset);
        }
    }
    let guest = Guest::new(TestDevice { sizes: vec![], ..TestDevice::default() });
    assert!(guest.at.notify.len >= 2);
}

#[test]
fn s4_1_4_6_1_a_device_without_a_configuration_has_no_structure_for_it() {
    let device = TestDevice { config: vec![], writable: 0..0, ..TestDevice::default() };
    let mut guest = Guest::placed(device);
    assert_eq!(guest.at.device, None);
    assert_eq!(guest.read::<u32>(0x100), 0);
    let guest = Guest::new(TestDevice::default());
    assert_eq!(guest.at.device.unwrap().len, 12);
}

#[test]
fn more_queues_than_vectors_share_what_there_is() {
    let device = TestDevice { sizes: vec![2; 3000], ..TestDevice::default() };
    assert_eq!(Guest::new(device).at.vectors, 2048);
}
