//! The transport: accesses of the two spaces in, calls of [`Queues`](virtio_dev::Queues) out.

mod bar;
mod builder;
mod common;
mod generic;

use std::ops::Range;

use virtio_dev::{
    ControlPlane, Interrupt, Messages as _, PendingWrite, QueueConfig, Queues, Status,
    VirtioDevice, WriteOutcome,
};

use crate::PciState;
use crate::config_space::{ConfigSpace, PCI_CFG_DATA, PCI_CFG_DATA_LEN, overlap};
use crate::layout::Layout;
use crate::msix::{Table, Vectors};
pub use builder::PciTransportBuilder;
pub use generic::PciAddress;

/// The size of the function's configuration space, in bytes, of which what is beyond the first 256
/// reads 0: there are no extended capabilities.
pub const CONFIG_SPACE_SIZE: u16 = 0x1000;

/// A PCI function that is one virtio device (virtio 1.2 §4.1), not transitional, with MSI-X and without
/// an interrupt pin.
///
/// It decodes the accesses for a [`ControlPlane`], and nothing else: it reads no guest memory and
/// waits for nothing. Whoever owns the bus passes in the driver's accesses to the configuration space,
/// and those to the range where the driver has placed the [BAR](Self::bar), with the [`Queues`] that the
/// transport starts and stops as the driver's writes ask for it. See the [crate's example](crate).
pub struct PciTransport<D> {
    control: ControlPlane<D>,
    config: ConfigSpace,
    layout: Layout,
    msix: Table,
}

impl<D: VirtioDevice> PciTransport<D> {
    /// Answers a read of `data.len()` bytes at `offset` in the configuration space. What is not there
    /// reads 0.
    pub fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        if overlap(offset, data.len(), PCI_CFG_DATA, PCI_CFG_DATA_LEN) {
            self.read_window();
        }
        self.config.read(offset, data);
        // §4.1.4.5.1; nothing is asserted, as there is no interrupt pin.
        if !self.config.function().enabled && self.control.interrupt_status() != 0 {
            ConfigSpace::show_interrupt(offset, data);
        }
    }

    /// Takes a write of `data` at `offset` in the configuration space. Bits that can't be written keep
    /// their value. The outcome is that of the write to the BAR that this is, if it is one through the
    /// window of `VIRTIO_PCI_CAP_PCI_CFG` (§4.1.4.9).
    ///
    /// It may move the [BAR](Self::bar), and decode it or not any more.
    pub fn config_write(
        &mut self,
        offset: u16,
        data: &[u8],
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        let before = self.config.function();
        self.config.write(offset, data);
        let function = self.config.function();
        if function != before {
            self.msix.set_function(function);
        }
        if overlap(offset, data.len(), PCI_CFG_DATA, PCI_CFG_DATA_LEN) {
            return self.write_window(queues);
        }
        WriteOutcome::Done
    }

    /// Where the driver has placed BAR 0: guest physical addresses, whose accesses are
    /// [`bar_read`](Self::bar_read)s and [`bar_write`](Self::bar_write)s. `None` while the function
    /// doesn't decode accesses to memory, or was given no address.
    ///
    /// The driver chooses it: it may be anywhere below 4 GiB, and over anything else that is there.
    pub fn bar(&self) -> Option<Range<u64>> {
        let start = u64::from(self.config.bar()?);
        Some(start..start.saturating_add(self.bar_len()))
    }

    /// The size of BAR 0 in bytes, a power of two.
    pub fn bar_len(&self) -> u64 {
        self.layout.size.into()
    }

    /// Takes the queues of a [restored](PciTransportBuilder::restore) transport into service, see
    /// [`ControlPlane::resume`], and then sends the message of each of them, and that of configuration
    /// changes, as the last may not have been sent when the state was taken.
    pub fn resume(&mut self, queues: &mut impl Queues<D>) {
        self.control.resume(queues);
        let live = Status::DRIVER_OK | Status::FAILED;
        if self.status().intersection(live) != Status::DRIVER_OK {
            return;
        }
        let count = self.queue_count();
        for index in (0..count).filter(|index| self.control.queue(*index).is_some()) {
            self.control.interrupt(index).used_buffer();
        }
        let _ = self.vectors().config_change();
    }

    /// A queue that was draining has stopped, see [`ControlPlane::queue_stopped`].
    pub fn queue_stopped(&mut self, queue: u16) {
        self.control.queue_stopped(queue);
    }

    /// Whether queues still drain that this write waits for, see [`ControlPlane::is_pending`].
    ///
    /// A driver of virtio-pci has to wait until `device_status`, or `queue_reset`, reads 0 after such a
    /// write (§4.1.4.3.2), and both are kept up until then. So the write may also be answered at once.
    /// To leave it unanswered is safe for drivers that don't wait, too: EDK2's gives its rings back
    /// right after it wrote 0 to the status.
    pub fn is_pending(&self, write: PendingWrite) -> bool {
        self.control.is_pending(write)
    }

    /// How the driver set up a queue, see [`ControlPlane::queue`].
    pub fn queue(&self, index: u16) -> Option<QueueConfig> {
        self.control.queue(index)
    }

    /// All features offered: the device's, and the transport's own.
    pub fn device_features(&self) -> u64 {
        self.control.device_features()
    }

    /// The negotiated features, see [`ControlPlane::features`].
    pub fn features(&self) -> u64 {
        self.control.features()
    }

    /// The features that the driver wrote, whether they were accepted or not.
    pub fn driver_features(&self) -> u64 {
        self.control.driver_features()
    }

    /// The device status, as the driver reads it.
    pub fn status(&self) -> Status {
        self.control.status()
    }

    /// The interrupt of a queue in this run of the device, for its live queue: a reset makes it stale.
    pub fn interrupt(&self, queue: u16) -> Interrupt {
        self.control.interrupt(queue)
    }

    /// The device changed its configuration space, see [`ControlPlane::config_changed`].
    pub fn config_changed(&self) {
        self.control.config_changed();
    }

    /// The registers behind the BAR, and more about them.
    pub fn control(&self) -> &ControlPlane<D> {
        &self.control
    }

    /// The device.
    pub fn device(&self) -> &D {
        self.control.device()
    }

    /// The device. After a change of its configuration call [`config_changed`](Self::config_changed).
    pub fn device_mut(&mut self) -> &mut D {
        self.control.device_mut()
    }

    /// All registers as one value.
    pub fn state(&self) -> PciState {
        PciState {
            control: self.control.state(),
            config_space: self.config.bytes().to_vec(),
            vectors: self.msix.state(),
            config_vector: self.vectors().config_vector(),
            queue_vectors: (0..self.queue_count())
                .map(|queue| self.vectors().queue_vector(queue))
                .collect(),
        }
    }

    fn vectors(&self) -> &Vectors {
        self.msix.vectors()
    }

    fn queue_count(&self) -> u16 {
        // `Layout::new` checked that their number is a u16.
        u16::try_from(self.device().queue_max_sizes().len()).unwrap_or(u16::MAX)
    }

    /// Makes the access that the window is set to: its data is what that reads.
    fn read_window(&mut self) {
        let Some(access) = self.config.window() else { return };
        let mut data = [0; 4];
        if let Some(data) = data.get_mut(..access.len) {
            self.bar_read(access.offset.into(), data);
            self.config.set_window_data(data);
        }
    }

    fn write_window(&mut self, queues: &mut impl Queues<D>) -> WriteOutcome {
        let Some(access) = self.config.window() else { return WriteOutcome::Done };
        let data = self.config.window_data();
        match data.get(..access.len) {
            Some(data) => self.bar_write(access.offset.into(), data, queues),
            None => WriteOutcome::Done,
        }
    }
}
