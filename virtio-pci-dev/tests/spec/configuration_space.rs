//! The configuration space of the function (PCI Local Bus 3.0 §6).

use crate::common::{BAR, Guest, TestDevice};

#[test]
fn the_function_has_a_list_of_capabilities() {
    let mut guest = Guest::new(TestDevice::default());
    assert_eq!(guest.config::<u16>(0x06), 0x10, "the status register");
    assert_eq!(guest.config::<u8>(0x34) % 4, 0);
}

#[test]
fn only_what_a_driver_may_write_changes() {
    let mut guest = Guest::new(TestDevice::default());
    let read = |guest: &mut Guest| -> Vec<u8> { (0..256).map(|at| guest.config(at)).collect() };
    let window = usize::from(guest.at.window);
    let msix = usize::from(guest.at.msix);
    let before = read(&mut guest);
    for at in 0..256_u16 {
        // Not the window's data, which is an access to the BAR.
        if !(window + 16..window + 20).contains(&at.into()) {
            guest.set_config(at, 0xff_u8);
        }
    }
    let after = read(&mut guest);
    let changed = |at: usize| before[at] ^ after[at];
    for at in 0..256 {
        let writable = match at {
            // Memory space, bus master, parity errors, SERR#, interrupt disable.
            0x04 => 0x46,
            0x05 => 0x05,
            // The BAR's address, above its size of 16 KiB.
            0x11 => 0xc0,
            0x12 | 0x13 => 0xff,
            0x3c => 0xff,
            // MSI-X Enable and Function Mask.
            _ if at == msix + 3 => 0xc0,
            // The window's BAR, offset, length.
            _ if at == window + 4 => 0xff,
            _ if (window + 8..window + 16).contains(&at) => 0xff,
            _ => 0,
        };
        assert_eq!(changed(at), writable, "{at:#x}");
    }
}

#[test]
fn the_bar_tells_its_size_and_is_32_bits_wide_and_not_prefetchable() {
    let mut guest = Guest::new(TestDevice::default());
    assert_eq!(guest.config::<u32>(0x10), 0);
    guest.set_config(0x10, u32::MAX);
    let mask = guest.config::<u32>(0x10);
    assert_eq!(u64::from(!mask) + 1, guest.transport.bar_len());
    assert_eq!((mask & 0xf, guest.transport.bar_len()), (0, 0x4000));
    guest.set_config(0x14, u32::MAX);
    assert_eq!(guest.config::<u32>(0x14), 0, "no other BAR");
}

#[test]
fn the_bar_is_where_the_driver_has_placed_it_while_memory_space_is_enabled() {
    let mut guest = Guest::new(TestDevice::default());
    assert_eq!(guest.transport.bar(), None);
    guest.set_config(0x10, BAR + 0x123);
    assert_eq!(guest.transport.bar(), None, "not enabled");
    guest.set_config(0x04, 2_u16);
    let bar = u64::from(BAR);
    assert_eq!(guest.transport.bar(), Some(bar..bar + 0x4000));
    // In two writes, of which neither is the whole address.
    guest.set_config(0x12, 0x4567_u16);
    assert_eq!(guest.transport.bar(), Some(0x4567_0000..0x4567_4000));
    guest.set_config(0x04, 4_u16);
    assert_eq!(guest.transport.bar(), None, "disabled");
    guest.set_config(0x04, 2_u16);
    guest.set_config(0x10, 0_u32);
    assert_eq!(guest.transport.bar(), None, "no address");
    guest.set_config(0x10, u32::MAX);
    assert_eq!(guest.transport.bar(), Some(0xffff_c000..0x1_0000_0000), "the last one below 4 GiB");
}

#[test]
fn what_is_beyond_256_bytes_reads_0_and_takes_no_writes() {
    let mut guest = Guest::new(TestDevice::default());
    let before = guest.transport.state();
    for at in [256, 257, 0x400, 0xfff, 0xffff] {
        assert_eq!(guest.config::<u32>(at), 0, "{at:#x}");
        guest.set_config(at, u32::MAX);
    }
    assert_eq!(guest.config::<u32>(254), 0, "across the end");
    assert_eq!(guest.transport.state(), before);
}

#[test]
fn s4_1_4_5_1_the_status_register_shows_the_isr_status_while_messages_are_disabled() {
    let mut guest = Guest::live(crate::V1);
    guest.transport.config_changed();
    assert_eq!(guest.config::<u16>(0x06), 0x10, "enabled");
    guest.set_msix(false, false);
    assert_eq!(guest.config::<u16>(0x06), 0x18);
    assert_eq!(guest.config::<u32>(0x04) >> 16, 0x18, "in any access");
    assert_eq!(guest.config::<u8>(0x06), 0x18);
    assert_eq!(guest.config::<u8>(0x07), 0, "it is in the lower byte");
    let _: u8 = guest.read(guest.at.isr.offset);
    assert_eq!(guest.config::<u16>(0x06), 0x10);
}
