//! The window to the BAR in the configuration space (§4.1.4.9).

use virtio_dev::{PendingWrite, WriteOutcome};

use crate::V1;
use crate::common::{BAR, Guest, TestDevice, common};

fn set(guest: &mut Guest, bar: u8, offset: u32, len: u32) {
    let at = guest.at.window;
    guest.set_config(at + 4, bar);
    guest.set_config(at + 8, offset);
    guest.set_config(at + 12, len);
}

fn data(guest: &mut Guest) -> u32 {
    guest.config(guest.at.window + 16)
}

#[test]
fn s4_1_4_9_1_reading_the_data_reads_the_bar() {
    let mut guest = Guest::new(TestDevice::default());
    let device = guest.at.device.unwrap().offset as u32;
    set(&mut guest, 0, device, 4);
    assert_eq!(data(&mut guest), 0x0403_0201, "before the BAR is placed");
    set(&mut guest, 0, device + 4, 2);
    assert_eq!(data(&mut guest) & 0xffff, 0x0605);
    set(&mut guest, 0, device + 11, 1);
    assert_eq!(guest.config::<u8>(guest.at.window + 16), 12);
    set(&mut guest, 0, common::NUM_QUEUES as u32, 2);
    assert_eq!(data(&mut guest) & 0xffff, 2);
}

#[test]
fn s4_1_4_9_1_writing_the_data_writes_the_bar() {
    let mut guest = Guest::new(TestDevice::default());
    let status = common::DEVICE_STATUS as u32;
    for value in [1_u8, 3] {
        set(&mut guest, 0, status, 1);
        guest.set_config(guest.at.window + 16, value);
        assert_eq!(guest.status(), value);
    }
    // A driver writes the whole field, whatever the length says.
    set(&mut guest, 0, common::QUEUE_SELECT as u32, 2);
    guest.set_config(guest.at.window + 16, 0xffff_0001_u32);
    assert_eq!(guest.get::<u16>(common::QUEUE_SELECT), 1);
    set(&mut guest, 0, common::DRIVER_FEATURE as u32, 4);
    guest.set_config(guest.at.window + 16, 0x2000_0001_u32);
    assert_eq!(guest.get::<u32>(common::DRIVER_FEATURE), 0x2000_0001);
}

#[test]
fn s4_1_4_9_1_a_write_through_the_window_has_the_outcome_of_that_write() {
    let mut guest = Guest::live(V1);
    let window = guest.at.window;
    let notify = guest.at.notify.offset as u32;
    set(&mut guest, 0, notify, 2);
    assert_eq!(guest.write_config(window + 16, &[0, 0]), WriteOutcome::Notify(0));
    set(&mut guest, 0, common::DEVICE_STATUS as u32, 1);
    let reset = WriteOutcome::Pending(PendingWrite::Reset);
    assert_eq!(guest.write_config(window + 16, &[0]), reset);
}

#[test]
fn s4_1_4_9_2_a_window_that_is_set_to_nothing_makes_no_access() {
    let mut guest = Guest::live(V1);
    let window = guest.at.window;
    for (bar, offset, len) in [
        (1, 0x100, 4),    // no such BAR
        (0, 0x14, 0),     // no bytes
        (0, 0x14, 3),     // no width
        (0, 0x14, 8),     // too many
        (0, 0x102, 4),    // not aligned
        (0, u32::MAX, 1), // nothing there
        (0, BAR, 4),      // an address instead of an offset
        (0, 0x14, u32::MAX),
    ] {
        set(&mut guest, bar, offset, len);
        let state = guest.transport.state().control;
        let _ = guest.write_config(window + 16, &[0; 4]);
        assert_eq!(guest.transport.state().control, state, "{bar} {offset:#x} {len}");
        assert_eq!(data(&mut guest), 0);
    }
}
