//! Where a guest finds its PCI bus: guest-physical addresses that Xen leaves free on Arm, unless PCI devices are passed
//! through to the guest, and interrupts.

use std::ops::RangeInclusive;

/// The GICv2m frame: behind the area of virtio-mmio devices (`GUEST_VIRTIO_MMIO_BASE` and `_SIZE` of Xen's
/// `public/arch-arm.h`).
pub(crate) const FRAME: RangeInclusive<u64> = 0x0220_0000..=0x0220_0fff;

/// The configuration space of bus 0, by the enhanced mechanism (ECAM): at `GUEST_VPCI_ECAM_BASE`.
pub(crate) const ECAM: RangeInclusive<u64> = 0x1000_0000..=0x100f_ffff;

/// The window of the devices' registers: at `GUEST_VPCI_MEM_ADDR`.
pub(crate) const MEMORY: RangeInclusive<u64> = 0x2300_0000..=0x23ff_ffff;

/// libxl's interrupts of virtio-mmio devices, of which each device has one, whether it is on the bus or not:
/// `GUEST_VIRTIO_MMIO_SPI_FIRST` and `_LAST`; before them that of the emulated UART.
pub(crate) const LAST_MMIO_SPI: u32 = 43;

/// The last shared peripheral interrupt that a GICv2m frame can have (its `MSI_TYPER` has 10 bits, and the GIC's
/// interrupts from 1020 on have meanings of their own).
pub(crate) const LAST_SPI: u32 = 1019;

/// How many bytes a range has.
pub(crate) fn len(range: &RangeInclusive<u64>) -> u64 {
    range.end() - range.start() + 1
}
