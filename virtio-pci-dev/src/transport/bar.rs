//! Accesses to the BAR.

use virtio_dev::{Ignored, Queues, VirtioDevice, WriteOutcome};

use super::PciTransport;
use crate::layout::{NOTIFY_OFF_MULTIPLIER, Region};

impl<D: VirtioDevice> PciTransport<D> {
    /// Answers a read of `data.len()` bytes at `offset` in the BAR. What is not there reads 0.
    ///
    /// Fields of the common configuration answer reads of their own width, at their offset (virtio 1.2
    /// §4.1.3.1), those of 64 bits also of each half; the ISR status one of a byte, which clears it;
    /// the device's configuration reads of 1, 2, 4 and 8 bytes, at any offset; the MSI-X table and its
    /// pending bits aligned reads of 4 and 8 bytes.
    pub fn bar_read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match self.layout.region(offset) {
            Region::Common(offset) => self.read_common(offset, data),
            Region::Isr => {
                if let [data] = data {
                    *data = self.control.take_interrupt_status();
                }
            }
            Region::Device(offset) if self.is_in_device(offset, data.len()) => {
                self.control.read_config(offset.into(), data);
            }
            Region::Table(offset) => self.msix.read(offset, data),
            Region::PendingBits(offset) => self.msix.read_pending_bits(offset, data),
            // Notifications are written only.
            Region::Device(_) | Region::Notify(_) | Region::Nothing => {}
        }
    }

    /// Takes a write of `data` at `offset` in the BAR, and has `queues` do what follows from it:
    /// always the same value, which serves this device's queues. What is not there, or may not be
    /// written now, is ignored, and the outcome says why; widths are as for
    /// [`bar_read`](Self::bar_read). A notification is a write of 2 bytes, or of 4 with ring positions.
    pub fn bar_write(
        &mut self,
        offset: u64,
        data: &[u8],
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        match self.layout.region(offset) {
            Region::Notify(offset) => self.notify(offset, data.len()),
            Region::Common(offset) => self.write_common(offset, data, queues),
            Region::Device(offset) if self.is_in_device(offset, data.len()) => {
                self.control.write_config(offset.into(), data, queues)
            }
            Region::Device(_) => WriteOutcome::Ignored(Ignored::Config),
            Region::Table(offset) => self.msix.write(offset, data, self.config.function()),
            Region::Isr | Region::PendingBits(_) | Region::Nothing => {
                WriteOutcome::Ignored(Ignored::NoRegister)
            }
        }
    }

    /// Each queue has an address of its own; its index is also what the driver writes there.
    #[inline]
    fn notify(&self, offset: u32, width: usize) -> WriteOutcome {
        if !matches!(width, 2 | 4) {
            return WriteOutcome::Ignored(Ignored::Width);
        }
        match offset.checked_div(NOTIFY_OFF_MULTIPLIER) {
            Some(index) if offset.is_multiple_of(NOTIFY_OFF_MULTIPLIER) => {
                self.control.notify(index)
            }
            _ => WriteOutcome::Ignored(Ignored::NoRegister),
        }
    }

    /// Whether an access ends where the structure does, that the capability describes.
    fn is_in_device(&self, offset: u32, width: usize) -> bool {
        let end = u32::try_from(width).ok().and_then(|width| offset.checked_add(width));
        end.is_some_and(|end| end <= self.layout.device_len)
    }
}
