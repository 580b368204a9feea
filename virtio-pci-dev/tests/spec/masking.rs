//! Masks and pending bits (PCI Local Bus 3.0 §6.8.2, §6.8.3).

use virtio_dev::{Ignored, WriteOutcome};

use crate::V1;
use crate::common::{DOORBELL, Guest, TestDevice};

#[test]
fn every_vector_is_masked_after_a_reset() {
    let mut guest = Guest::placed(TestDevice::default());
    assert_eq!(guest.at.vectors, 3);
    for vector in 0..3 {
        let at = guest.at.table + vector * 16;
        assert_eq!((guest.read::<u64>(at), guest.read::<u64>(at + 8)), (0, 1 << 32));
    }
    assert_eq!(guest.config::<u16>(guest.at.msix + 2), 2, "disabled, the last vector is 2");
}

#[test]
fn an_entry_reads_as_it_was_written_but_for_reserved_bits() {
    let mut guest = Guest::placed(TestDevice::default());
    let at = guest.at.table + 16;
    let entry = [0x1111_2222_u32, 0x3333_4444, 0x5555_6666, u32::MAX];
    for (offset, part) in (at..).step_by(4).zip(entry) {
        assert_eq!(guest.write(offset, &part.to_le_bytes()), WriteOutcome::Done);
    }
    assert_eq!(guest.read::<u64>(at), 0x3333_4444_1111_2222);
    assert_eq!(guest.read::<u64>(at + 8), 0x1_5555_6666);
    assert_eq!(guest.write(at, &0x8888_7777_6666_5555_u64.to_le_bytes()), WriteOutcome::Done);
    assert_eq!(guest.read::<u32>(at + 4), 0x8888_7777, "as one access of 8 bytes");
    assert_eq!(guest.write(at + 12, &(!1_u32).to_le_bytes()), WriteOutcome::Done);
    assert_eq!(guest.read::<u32>(at + 12), 0, "the mask is one bit");
    assert_eq!(guest.read::<u32>(at - 16), 0, "the others stay");
    assert_eq!(guest.read::<u32>(at + 16), 0);
}

#[test]
fn the_table_takes_aligned_accesses_of_4_and_8_bytes_only() {
    let mut guest = Guest::live(V1);
    let state = guest.transport.state();
    let at = guest.at.table;
    for (offset, width) in [(at, 1), (at, 2), (at + 2, 4), (at + 4, 8), (at, 16), (at, 12), (at, 0)]
    {
        let mut data = vec![0xaa; width];
        guest.transport.bar_read(offset, &mut data);
        assert!(data.iter().all(|byte| *byte == 0), "{offset:#x}, {width}");
        let outcome = guest.write(offset, &vec![1; width]);
        assert_eq!(outcome, WriteOutcome::Ignored(Ignored::Width), "{offset:#x}, {width}");
    }
    assert_eq!(guest.transport.state(), state);
}

#[test]
fn an_event_of_a_masked_vector_is_pending_and_sent_once_when_it_is_unmasked() {
    let mut guest = Guest::live(V1);
    guest.mask(1, true);
    guest.transport.interrupt(0).used_buffer();
    guest.transport.interrupt(0).used_buffer();
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![], 0b10));
    assert_eq!(guest.read::<u32>(guest.at.pending_bits + 4), 0);
    guest.transport.config_changed();
    assert_eq!(guest.messages.take(), [100], "another vector");
    guest.mask(1, false);
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![101], 0));
    guest.mask(1, true);
    guest.mask(1, false);
    guest.messages.none("nothing has happened since");
}

#[test]
fn the_function_mask_masks_every_vector() {
    let mut guest = Guest::live(V1);
    guest.set_msix(true, true);
    guest.transport.interrupt(0).used_buffer();
    guest.transport.config_changed();
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![], 0b11));
    guest.mask(1, true);
    guest.set_msix(true, false);
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![100], 0b10), "but for its own");
    guest.mask(1, false);
    assert_eq!(guest.messages.take(), [101]);
}

#[test]
fn a_function_that_is_no_bus_master_sends_nothing_until_it_is() {
    let mut guest = Guest::live(V1);
    guest.set_bus_master(false);
    guest.transport.interrupt(0).used_buffer();
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![], 0b10));
    guest.set_bus_master(true);
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![101], 0));
}

#[test]
fn while_msi_x_is_disabled_no_message_is_sent_or_pending() {
    let mut guest = Guest::live(V1);
    guest.set_msix(false, false);
    guest.transport.interrupt(0).used_buffer();
    guest.transport.config_changed();
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![], 0));
    guest.set_msix(true, false);
    guest.messages.none("the ISR status has said it");
}

#[test]
fn what_is_pending_when_msi_x_is_disabled_waits_until_it_is_enabled() {
    let mut guest = Guest::live(V1);
    guest.mask(1, true);
    guest.transport.interrupt(0).used_buffer();
    guest.set_msix(false, false);
    guest.mask(1, false);
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![], 0b10));
    guest.set_msix(true, false);
    assert_eq!((guest.messages.take(), guest.pending_bits()), (vec![101], 0));
}

#[test]
fn what_is_pending_goes_to_where_the_message_goes_now() {
    let mut guest = Guest::live(V1);
    guest.mask(1, true);
    guest.transport.interrupt(0).used_buffer();
    // As Linux moves an interrupt to another processor.
    guest.set_entry(1, DOORBELL, 55, true);
    guest.mask(1, false);
    assert_eq!(guest.messages.take(), [55]);
}

#[test]
fn pending_bits_are_read_only() {
    let mut guest = Guest::live(V1);
    guest.mask(1, true);
    guest.transport.interrupt(0).used_buffer();
    let at = guest.at.pending_bits;
    assert_eq!(guest.write(at, &[0; 4]), WriteOutcome::Ignored(Ignored::NoRegister));
    assert_eq!((guest.read::<u32>(at), guest.read::<u64>(at), guest.read::<u16>(at)), (2, 2, 0));
}

#[test]
fn each_vector_has_its_pending_bit() {
    let device = TestDevice { sizes: vec![2; 99], ..TestDevice::default() };
    let mut guest = Guest::placed(device);
    guest.enable_messages();
    guest.negotiate(V1);
    guest.set(crate::common::common::DEVICE_STATUS, 15_u8);
    guest.set_msix(true, true);
    for queue in [0_u16, 30, 31, 62, 63, 98] {
        guest.set(crate::common::common::QUEUE_SELECT, queue);
        guest.set(crate::common::common::QUEUE_MSIX_VECTOR, queue + 1);
        guest.transport.interrupt(queue).used_buffer();
    }
    let at = guest.at.pending_bits;
    let expected: u128 = [1, 31, 32, 63, 64, 99].iter().map(|bit| 1_u128 << bit).sum();
    let (low, high): (u64, u64) = (guest.read(at), guest.read(at + 8));
    assert_eq!(u128::from(low) | u128::from(high) << 64, expected);
    assert_eq!(guest.read::<u32>(at + 12), 1 << 3);
    assert_eq!(guest.read::<u64>(at + 16), 0);
}
