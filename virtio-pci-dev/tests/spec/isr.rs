//! The ISR status (§4.1.4.5).

use virtio_dev::{Ignored, WriteOutcome};

use crate::V1;
use crate::common::Guest;

/// A live device whose driver has not enabled MSI-X, as those of firmware don't.
fn polled() -> Guest {
    let mut guest = Guest::live(V1);
    guest.set_msix(false, false);
    guest
}

fn isr(guest: &mut Guest) -> u8 {
    guest.read(guest.at.isr.offset)
}

#[test]
fn s4_1_4_5_1_without_messages_both_bits_tell_what_happened_and_reading_clears_them() {
    let mut guest = polled();
    assert_eq!(isr(&mut guest), 0);
    guest.transport.interrupt(0).used_buffer();
    assert_eq!(isr(&mut guest), 1);
    assert_eq!(isr(&mut guest), 0);
    guest.transport.config_changed();
    assert_eq!(isr(&mut guest), 2);
    guest.transport.interrupt(0).used_buffer();
    guest.transport.config_changed();
    assert_eq!(isr(&mut guest), 3);
    assert_eq!(isr(&mut guest), 0);
    guest.messages.none("there is no interrupt pin");
}

#[test]
fn s4_1_4_5_1_with_messages_the_bit_of_configuration_changes_is_set_before_the_message() {
    let mut guest = Guest::live(V1);
    guest.transport.config_changed();
    assert_eq!(guest.messages.take(), [100]);
    assert_eq!(isr(&mut guest), 2);
    guest.transport.interrupt(0).used_buffer();
    assert_eq!(guest.messages.take(), [101]);
    assert_eq!(isr(&mut guest), 0, "which is not asked of the queues' bit");
}

#[test]
fn s4_1_4_5_the_isr_status_is_one_byte_that_is_read() {
    let mut guest = polled();
    guest.transport.config_changed();
    let at = guest.at.isr.offset;
    assert_eq!((guest.read::<u16>(at), guest.read::<u32>(at)), (0, 0));
    assert_eq!(guest.write(at, &[3]), WriteOutcome::Ignored(Ignored::NoRegister));
    assert_eq!(isr(&mut guest), 2, "nothing of this has cleared it");
}
