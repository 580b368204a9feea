//! The configuration space of the function: what its bytes are, and which of them a driver writes.

mod capabilities;
mod offsets;

use crate::bytes::{put, value};
use crate::class::class_code;
use crate::layout::Layout;
use crate::msix::Function;
use offsets::{FIRST, MSIX_CONTROL};
pub(crate) use offsets::{PCI_CFG_DATA, PCI_CFG_DATA_LEN};

/// The part of the configuration space that a function without PCI Express capabilities has.
pub(crate) const LEN: usize = 256;

/// Virtio's vendor ID (virtio 1.2 §4.1.2).
const VENDOR: u16 = 0x1af4;
/// The device ID of device type 0; the types follow.
const DEVICE_0: u16 = 0x1040;
/// One more than the greatest device type that has a device ID: IDs end at 0x107f.
const DEVICE_TYPES: u16 = 0x40;
/// At least 1, of a device that is not transitional (§4.1.2.1).
const REVISION: u8 = 1;

const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const BAR_0: u16 = 0x10;
const SUBSYSTEM: u16 = 0x2c;
const CAPABILITIES: u16 = 0x34;
const INTERRUPT_LINE: u16 = 0x3c;

const MEMORY_SPACE: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;
/// What of the command register is written. Besides the two above: parity error response, SERR# and
/// interrupt disable, which do nothing here.
const COMMAND_WRITABLE: u16 = MEMORY_SPACE | BUS_MASTER | 1 << 6 | 1 << 8 | 1 << 10;
const CAPABILITIES_LIST: u16 = 1 << 4;
/// Interrupt Status.
const INTERRUPT_STATUS: u8 = 1 << 3;

const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;

/// The bytes of the configuration space. The registers in it that are no more than what was last
/// written there have no other place: the command, the BAR, MSI-X's message control, the window of
/// `VIRTIO_PCI_CAP_PCI_CFG`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ConfigSpace {
    bytes: [u8; LEN],
    /// The bits that a driver writes.
    writable: [u8; LEN],
}

impl ConfigSpace {
    /// After a reset. `None` if the device type has no device ID.
    pub(crate) fn new(device_type: u32, layout: &Layout) -> Option<Self> {
        let device_type = u16::try_from(device_type).ok().filter(|kind| *kind < DEVICE_TYPES)?;
        let device_id = DEVICE_0.checked_add(device_type)?;
        let mut space = Self { bytes: [0; LEN], writable: [0; LEN] };
        space.set(0x00, &VENDOR.to_le_bytes());
        space.set(0x02, &device_id.to_le_bytes());
        space.set(STATUS, &CAPABILITIES_LIST.to_le_bytes());
        let [interface, sub, base, _] = class_code(device_type.into()).to_le_bytes();
        space.set(0x08, &[REVISION, interface, sub, base]);
        // A 32-bit BAR, not prefetchable: it has to go below 4 GiB, where the windows of such bridges
        // are, and takes one write.
        space.set_writable(BAR_0, &bar_mask(layout).to_le_bytes());
        space.set(SUBSYSTEM, &VENDOR.to_le_bytes());
        // "SHOULD be 0x40 or higher" (§4.1.2.1)
        space.set(0x2e, &device_id.to_le_bytes());
        space.set(CAPABILITIES, &[FIRST]);
        space.set_writable(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        // For drivers to keep a number in; the interrupt pin is 0, none.
        space.set_writable(INTERRUPT_LINE, &[0xff]);
        space.put_capabilities(layout);
        Some(space)
    }

    /// The configuration space as it was in `state`, if only what a driver writes is otherwise now.
    pub(crate) fn restored(&self, state: &[u8]) -> Option<Self> {
        let bytes = <[u8; LEN]>::try_from(state).ok()?;
        let fits = |((old, new), writable): ((&u8, &u8), &u8)| (old ^ new) & !writable == 0;
        let bits = self.bytes.iter().zip(&bytes).zip(&self.writable);
        bits.into_iter().all(fits).then_some(Self { bytes, writable: self.writable })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads what is there: beyond the end, 0.
    pub(crate) fn read(&self, offset: u16, data: &mut [u8]) {
        data.fill(0);
        for (to, from) in data.iter_mut().zip(self.bytes.iter().skip(usize::from(offset))) {
            *to = *from;
        }
    }

    /// Changes the bits that a driver writes.
    pub(crate) fn write(&mut self, offset: u16, data: &[u8]) {
        let bytes = self.bytes.iter_mut().zip(&self.writable).skip(usize::from(offset));
        for ((byte, writable), new) in bytes.zip(data) {
            *byte = *byte & !writable | new & writable;
        }
    }

    /// The address of the BAR, while the function decodes accesses to memory.
    pub(crate) fn bar(&self) -> Option<u32> {
        let address = u32::try_from(self.get(BAR_0, 4)).unwrap_or(0);
        (self.get_u16(COMMAND) & MEMORY_SPACE != 0 && address != 0).then_some(address)
    }

    pub(crate) fn function(&self) -> Function {
        let control = self.get_u16(MSIX_CONTROL);
        Function {
            enabled: control & MSIX_ENABLE != 0,
            masked: control & MSIX_FUNCTION_MASK != 0,
            bus_master: self.get_u16(COMMAND) & BUS_MASTER != 0,
        }
    }

    /// Puts the interrupt status into what was read at `offset`: bit 3 of the status register.
    pub(crate) fn show_interrupt(offset: u16, data: &mut [u8]) {
        let status = usize::from(STATUS).checked_sub(offset.into());
        if let Some(byte) = status.and_then(|at| data.get_mut(at)) {
            *byte |= INTERRUPT_STATUS;
        }
    }

    fn set(&mut self, offset: u16, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(usize::from(offset)).zip(bytes) {
            *to = *from;
        }
    }

    fn set_writable(&mut self, offset: u16, mask: &[u8]) {
        for (to, from) in self.writable.iter_mut().skip(usize::from(offset)).zip(mask) {
            *to = *from;
        }
    }

    fn get(&self, offset: u16, len: usize) -> u64 {
        let mut data = [0; 8];
        let len = len.min(data.len());
        for (to, from) in data.iter_mut().zip(self.bytes.iter().skip(offset.into()).take(len)) {
            *to = *from;
        }
        value(&data)
    }

    fn get_u16(&self, offset: u16) -> u16 {
        u16::try_from(self.get(offset, 2)).unwrap_or(0)
    }
}

/// The address bits of a BAR of this size: below them it reads 0, which is how a driver learns it.
fn bar_mask(layout: &Layout) -> u32 {
    !layout.size.wrapping_sub(1)
}

/// Whether an access of `len` bytes at `offset` is also one to the `other_len` bytes at `other`.
pub(crate) fn overlap(offset: u16, len: usize, other: u16, other_len: u16) -> bool {
    let (offset, other) = (usize::from(offset), usize::from(other));
    offset < other.saturating_add(other_len.into()) && other < offset.saturating_add(len)
}

/// An access that a driver makes through the window of `VIRTIO_PCI_CAP_PCI_CFG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowAccess {
    /// Where in the BAR.
    pub(crate) offset: u32,
    /// How many bytes: 1, 2 or 4.
    pub(crate) len: usize,
}

impl ConfigSpace {
    /// The access that the window is set to, if it is one that a driver may make (virtio 1.2
    /// §4.1.4.9.2): to BAR 0, of 1, 2 or 4 bytes, aligned.
    pub(crate) fn window(&self) -> Option<WindowAccess> {
        let bar = self.get(offsets::PCI_CFG_BAR, 1);
        let offset = u32::try_from(self.get(offsets::PCI_CFG_OFFSET, 4)).ok()?;
        let len = u32::try_from(self.get(offsets::PCI_CFG_LENGTH, 4)).ok()?;
        let fits = bar == 0 && matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len);
        Some(WindowAccess { offset, len: usize::try_from(len).ok()? }).filter(|_| fits)
    }

    /// What the window's data reads from now on.
    pub(crate) fn set_window_data(&mut self, data: &[u8]) {
        self.set(PCI_CFG_DATA, data);
    }

    /// The window's data as last written.
    pub(crate) fn window_data(&self) -> [u8; 4] {
        let mut data = [0; 4];
        put(self.get(PCI_CFG_DATA, 4), &mut data);
        data
    }
}
