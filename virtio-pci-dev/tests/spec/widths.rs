//! How wide an access is (§4.1.3).

use virtio_dev::{Ignored, WriteOutcome};

use crate::V1;
use crate::common::{Guest, TestDevice, common};

#[test]
fn s4_1_3_1_fields_answer_accesses_of_their_own_width_only() {
    let mut guest = Guest::live(V1);
    let state = guest.transport.state();
    let end = common::FIELDS.last().unwrap().0;
    for offset in 0..end {
        for width in [1, 2, 3, 4, 5, 8, 16] {
            let field = common::FIELDS.iter().any(|(field, len, _)| {
                let half = *len == 8 && width == 4 && offset == field + 4;
                let whole = *field == offset && (*len == width || *len == 8 && width == 4);
                whole || half
            });
            if field {
                continue;
            }
            let mut data = vec![0xaa; width];
            guest.transport.bar_read(offset, &mut data);
            assert!(data.iter().all(|byte| *byte == 0), "{offset:#x}, {width}: {data:x?}");
            let outcome = guest.write(offset, &vec![1; width]);
            assert_eq!(outcome, WriteOutcome::Ignored(Ignored::Width), "{offset:#x}, {width}");
        }
    }
    assert_eq!(guest.transport.state(), state);
}

#[test]
fn s4_1_3_1_each_half_of_an_address_is_a_field_and_both_are_one() {
    let mut guest = Guest::placed(TestDevice::default());
    for field in [common::QUEUE_DESC, common::QUEUE_DRIVER, common::QUEUE_DEVICE] {
        assert_eq!(guest.put(field, 0x1111_2222_u32), WriteOutcome::Done);
        assert_eq!(guest.put(field + 4, 0x3333_4444_u32), WriteOutcome::Done);
        assert_eq!(guest.get::<u64>(field), 0x3333_4444_1111_2222);
        assert_eq!(guest.put(field, 0x8000_0000_1234_5678_u64), WriteOutcome::Done);
        assert_eq!(guest.get::<u32>(field), 0x1234_5678);
        assert_eq!(guest.get::<u32>(field + 4), 0x8000_0000);
    }
}

#[test]
fn s4_1_4_3_what_a_driver_only_reads_takes_no_write() {
    let mut absent = Guest::placed(TestDevice::default());
    absent.set(common::QUEUE_SELECT, 7_u16);
    for mut guest in [Guest::placed(TestDevice::default()), Guest::live(V1), absent] {
        let state = guest.transport.state();
        for (field, width, writable) in common::FIELDS {
            if width != 0 && !writable {
                let outcome = guest.write(field, &vec![1; width]);
                assert_eq!(outcome, WriteOutcome::Ignored(Ignored::NoRegister), "{field:#x}");
            }
        }
        assert_eq!(guest.transport.state(), state);
    }
}

#[test]
fn s4_1_3_2_halves_of_a_field_of_the_device_can_be_read_by_themselves() {
    let mut guest = Guest::placed(TestDevice::default());
    let at = guest.at.device.unwrap().offset;
    assert_eq!(guest.read::<u64>(at), 0x0807_0605_0403_0201);
    assert_eq!(guest.read::<u32>(at), 0x0403_0201);
    assert_eq!(guest.read::<u32>(at + 4), 0x0807_0605);
    assert_eq!(guest.read::<u16>(at + 8), 0x0a09);
    assert_eq!(guest.read::<u8>(at + 11), 12);
}

#[test]
fn between_the_structures_and_after_them_there_is_nothing() {
    let mut guest = Guest::live(V1);
    let state = guest.transport.state();
    let at = guest.at.clone();
    let device = at.device.unwrap();
    let pending_end = at.pending_bits + 8;
    let parts = [
        (at.common.offset, at.common.len),
        (at.isr.offset, at.isr.len),
        (device.offset, device.len),
        (at.notify.offset, at.notify.len),
        (at.table, u64::from(at.vectors) * 16),
        (at.pending_bits, pending_end - at.pending_bits),
    ];
    let len = guest.transport.bar_len();
    let outside = (0..len)
        .step_by(4)
        .chain([len, len + 8, u64::MAX - 3])
        .filter(|offset| !parts.iter().any(|(start, len)| (*start..start + len).contains(offset)));
    for offset in outside {
        assert_eq!(guest.read::<u32>(offset), 0, "{offset:#x}");
        let outcome = guest.write(offset, &[0xff; 4]);
        assert_eq!(outcome, WriteOutcome::Ignored(Ignored::NoRegister), "{offset:#x}");
    }
    assert_eq!(guest.transport.state(), state);
}
