//! The device's configuration (§4.1.4.6) and its generation.

use virtio_dev::{Ignored, WriteOutcome};

use crate::V1;
use crate::common::{Call, Guest, common};

#[test]
fn s4_1_4_6_a_driver_writes_the_fields_that_it_may() {
    let mut guest = Guest::live(V1);
    let at = guest.at.device.unwrap().offset;
    let generation: u8 = guest.get(common::CONFIG_GENERATION);
    assert_eq!(guest.write(at + 8, &[0x55]), WriteOutcome::Done);
    assert_eq!(guest.queues.calls, [Call::ConfigWritten]);
    assert_eq!(guest.read::<u8>(at + 8), 0x55);
    assert_ne!(guest.get::<u8>(common::CONFIG_GENERATION), generation);
    assert_eq!(guest.write(at, &[0x55]), WriteOutcome::Ignored(Ignored::Config));
    assert_eq!(guest.read::<u8>(at), 1);
}

#[test]
fn s4_1_4_3_1_the_generation_changes_with_the_configuration() {
    let mut guest = Guest::live(V1);
    let mut before: u8 = guest.get(common::CONFIG_GENERATION);
    // It is one byte.
    for _ in 0..300 {
        guest.transport.config_changed();
        let now = guest.get(common::CONFIG_GENERATION);
        assert_ne!(before, now);
        before = now;
    }
}

#[test]
fn the_configuration_ends_where_its_capability_says() {
    let mut guest = Guest::live(V1);
    let at = guest.at.device.unwrap();
    let end = at.offset + at.len;
    assert_eq!(guest.read::<u32>(end - 4), 0x0c0b_0a09);
    assert_eq!(guest.read::<u32>(end - 2), 0, "across the end");
    // A device whose configuration grows later shows no more of it.
    guest.transport.device_mut().config.extend([0xff; 8]);
    guest.transport.device_mut().writable = 8..20;
    assert_eq!(guest.read::<u32>(end - 2), 0);
    assert_eq!(guest.read::<u32>(end), 0);
    assert_eq!(guest.write(end - 2, &[0; 4]), WriteOutcome::Ignored(Ignored::Config));
    assert_eq!(guest.write(end, &[0; 4]), WriteOutcome::Ignored(Ignored::NoRegister));
}
