//! The function as a transport, for code that works over any.

use virtio_dev::{ControlPlane, Queues, Transport, VirtioDevice, WriteOutcome};

use super::PciTransport;

/// Where a driver's access to the function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciAddress {
    /// An offset in the configuration space.
    Config(u16),
    /// An offset in BAR 0.
    Bar(u64),
}

impl<D: VirtioDevice> Transport for PciTransport<D> {
    type Device = D;
    type Address = PciAddress;

    fn read(&mut self, address: PciAddress, data: &mut [u8]) {
        match address {
            PciAddress::Config(offset) => self.config_read(offset, data),
            PciAddress::Bar(offset) => self.bar_read(offset, data),
        }
    }

    fn write(
        &mut self,
        address: PciAddress,
        data: &[u8],
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        match address {
            PciAddress::Config(offset) => self.config_write(offset, data, queues),
            PciAddress::Bar(offset) => self.bar_write(offset, data, queues),
        }
    }

    fn resume(&mut self, queues: &mut impl Queues<D>) {
        self.resume(queues);
    }

    fn queue_stopped(&mut self, queue: u16) {
        self.queue_stopped(queue);
    }

    fn control(&self) -> &ControlPlane<D> {
        self.control()
    }

    fn device_mut(&mut self) -> &mut D {
        self.device_mut()
    }
}
