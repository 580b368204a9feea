//! The guest's PCI bus: a host bridge that is generic (`pci-host-ecam-generic`), and a GICv2m frame for the devices'
//! messages. Neither has a state of its own.

use std::ops::RangeInclusive;

use super::{
    layout::{ECAM, FRAME, MEMORY},
    slot::Slot,
};

/// What a guest accesses on its bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A register of the GICv2m frame, at this offset.
    Frame(u64),
    /// A register of a device's configuration space, at this offset.
    Config(Slot, u16),
    /// A function that no device has, or bytes of more than one: all ones, as of a transaction that nobody answers
    /// (PCI Express 2.3.2, "completion handling rules").
    Nothing,
}

/// What `size` bytes at `addr` are, if they are the bus's: not the devices' registers, of which the devices know where
/// they are.
pub(crate) fn target(addr: u64, size: u8) -> Option<Target> {
    let last = addr.checked_add(u64::from(size).checked_sub(1)?)?;
    if within(&FRAME, addr, last) {
        return Some(Target::Frame(addr - FRAME.start()));
    }
    if !within(&ECAM, addr, last) {
        return None;
    }
    let (slot, offset) = Slot::of_config(addr - ECAM.start())?;
    // The one function is function 0.
    let is_one_register = addr >> 12 == last >> 12 && offset >> 12 == 0;
    Some(if is_one_register { Target::Config(slot, offset) } else { Target::Nothing })
}

/// A device's registers as the guest has placed them, if they are in the bridge's window: elsewhere the bridge doesn't
/// pass accesses on.
pub(crate) fn in_window(bar: std::ops::Range<u64>) -> Option<RangeInclusive<u64>> {
    let last = bar.end.checked_sub(1)?;
    (bar.start <= last && within(&MEMORY, bar.start, last)).then_some(bar.start..=last)
}

fn within(range: &RangeInclusive<u64>, first: u64, last: u64) -> bool {
    range.contains(&first) && range.contains(&last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u64) -> Slot {
        Slot::of_window(0x0200_0000 + (number - 1) * 0x200).unwrap()
    }

    #[test]
    fn an_access_to_function_0_is_its_devices() {
        let config = ECAM.start() + (3 << 15);
        assert_eq!(target(config, 4), Some(Target::Config(slot(3), 0)));
        assert_eq!(target(config + 0xffe, 2), Some(Target::Config(slot(3), 0xffe)));
    }

    #[test]
    fn an_access_to_another_function_or_to_two_is_nobodys() {
        let config = ECAM.start() + (3 << 15);
        for (addr, size) in [(config + 0x1000, 4), (config + 0x7ffc, 4), (config + 0xffe, 4)] {
            assert_eq!(target(addr, size), Some(Target::Nothing), "{addr:#x}");
        }
    }

    #[test]
    fn an_access_beyond_the_bus_is_not_the_buss() {
        for (addr, size) in [
            (ECAM.start() - 4, 4),
            (ECAM.end() - 1, 4),
            (ECAM.end() + 1, 4),
            (FRAME.start() - 2, 4),
            (FRAME.end() + 1, 1),
            (u64::MAX, 8),
            (*FRAME.start(), 0),
        ] {
            assert_eq!(target(addr, size), None, "{addr:#x}");
        }
        assert_eq!(target(FRAME.start() + 0xfcc, 4), Some(Target::Frame(0xfcc)));
    }

    #[test]
    fn registers_count_in_the_bridges_window_only() {
        let start = *MEMORY.start();
        assert_eq!(in_window(start..start + 0x4000), Some(start..=start + 0x3fff));
        for bar in [0..0x4000, start - 0x2000..start + 0x2000, start..start, u64::MAX - 1..u64::MAX]
        {
            assert_eq!(in_window(bar.clone()), None, "{bar:x?}");
        }
    }
}
