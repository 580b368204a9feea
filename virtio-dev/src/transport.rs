//! What every transport does.

use crate::{ControlPlane, Queues, VirtioDevice, WriteOutcome};

/// A transport of a virtio device: it decodes the driver's accesses for a [`ControlPlane`].
///
/// For code that works over any of them, as [`InlineDevice`](crate::InlineDevice) does. The transports
/// have these methods as their own, too.
pub trait Transport {
    /// The device.
    type Device: VirtioDevice;
    /// Where an access is: an offset in the window of virtio-mmio; a function of virtio-pci has two
    /// spaces.
    type Address: Copy;

    /// Answers a driver's read. What is not there reads 0.
    fn read(&mut self, address: Self::Address, data: &mut [u8]);

    /// Takes a driver's write, and has `queues` do what follows from it: always the same value, which
    /// serves this device's queues.
    fn write(
        &mut self,
        address: Self::Address,
        data: &[u8],
        queues: &mut impl Queues<Self::Device>,
    ) -> WriteOutcome;

    /// Takes the queues of a restored transport into service, see [`ControlPlane::resume`].
    fn resume(&mut self, queues: &mut impl Queues<Self::Device>);

    /// A queue that was draining has stopped, see [`ControlPlane::queue_stopped`].
    fn queue_stopped(&mut self, queue: u16);

    /// The device's registers and status, to be looked at.
    fn control(&self) -> &ControlPlane<Self::Device>;

    /// The device. After a change of its configuration call
    /// [`config_changed`](ControlPlane::config_changed) of [`control`](Self::control).
    fn device_mut(&mut self) -> &mut Self::Device;
}
