//! The place of a device on the bus.

use std::ops::RangeInclusive;

use virtio_mmio_dev::WINDOW_SIZE;

use super::layout::ECAM;

/// libxl puts the windows of a guest's virtio devices from here on, one behind the other, whichever backend each device
/// has (`GUEST_VIRTIO_MMIO_BASE` of Xen's `public/arch-arm.h`).
const FIRST_WINDOW: u64 = 0x0200_0000;

/// What the configuration spaces of one device's eight functions take.
const CONFIG_SIZE: u64 = 8 << 12;

/// A device number on bus 0, from 0 to 31. It follows from the device's virtio-mmio window, so that backends which
/// know nothing of each other agree on it. Device 0 is none of them, as on machines that have the bridge itself there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u8);

impl Slot {
    /// That of the device whose window is at `base`; `None` for a window elsewhere, whose device is on no bus.
    pub(crate) fn of_window(base: u64) -> Option<Self> {
        let number = base.checked_sub(FIRST_WINDOW)? / WINDOW_SIZE + 1;
        let number = u8::try_from(number).ok().filter(|number| *number < 32);
        number.filter(|_| base.is_multiple_of(WINDOW_SIZE)).map(Self)
    }

    /// Every one.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..32).map(Self)
    }

    /// In whose configuration space a byte of bus 0's is, and where: with the function in bits 12 to 14.
    pub(crate) fn of_config(offset: u64) -> Option<(Self, u16)> {
        let number = u8::try_from(offset / CONFIG_SIZE).ok().filter(|number| *number < 32)?;
        Some((Self(number), (offset % CONFIG_SIZE) as u16))
    }

    /// The guest-physical addresses of its configuration space.
    pub(crate) fn config(self) -> RangeInclusive<u64> {
        let start = ECAM.start() + u64::from(self.0) * CONFIG_SIZE;
        start..=start + (CONFIG_SIZE - 1)
    }

    fn bit(self) -> u32 {
        1 << self.0
    }
}

/// Some places on the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Slots(u32);

impl Slots {
    pub(crate) fn contains(self, slot: Slot) -> bool {
        self.0 & slot.bit() != 0
    }

    pub(crate) fn insert(&mut self, slot: Slot) {
        self.0 |= slot.bit();
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        self.0 &= !slot.bit();
    }
}

impl FromIterator<Slot> for Slots {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut all = Self::default();
        slots.into_iter().for_each(|slot| all.insert(slot));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_window_of_libxl_is_device_n_of_the_bus() {
        assert_eq!(Slot::of_window(0x0200_0000), Some(Slot(1)));
        assert_eq!(Slot::of_window(0x0200_0200), Some(Slot(2)));
        assert_eq!(Slot::of_window(0x0200_0000 + 30 * 0x200), Some(Slot(31)));
    }

    #[test]
    fn a_window_elsewhere_is_on_no_bus() {
        for base in [0, 0x01ff_fe00, 0x0200_0100, 0x0200_0000 + 31 * 0x200, 0x0a00_0000, !0x1ff] {
            assert_eq!(Slot::of_window(base), None, "{base:#x}");
        }
    }

    #[test]
    fn the_configuration_spaces_of_all_devices_are_the_whole_ecam() {
        let mut next = *ECAM.start();
        for slot in Slot::all() {
            assert_eq!(*slot.config().start(), next);
            let offset = next - ECAM.start();
            assert_eq!(Slot::of_config(offset), Some((slot, 0)));
            assert_eq!(Slot::of_config(offset + 0x7fff), Some((slot, 0x7fff)));
            next = slot.config().end() + 1;
        }
        assert_eq!(next, ECAM.end() + 1);
        assert_eq!(Slot::of_config(next - ECAM.start()), None);
    }
}
