//! Devices that a guest's PCI bus can't have.

use std::os::fd::OwnedFd;

use virtio_dev::{Chain, VirtioDevice, vm_memory::GuestAddressSpace};
use xen_virtio_backend::{
    Inline, InlineDevices, TransportKind,
    fake::{DeviceConfig, FakeToolstack, PciFunction, reg},
    node::DeviceType,
};

/// Of a type that no PCI device ID is for (virtio 1.2 §4.1.2.1: 0x1040 to 0x107f).
struct Odd;

impl VirtioDevice for Odd {
    fn device_type(&self) -> u32 {
        Self::DEVICE_TYPE.0
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[16]
    }
}

impl Inline for Odd {
    const NAME: &'static str = "odd";
    const DEVICE_TYPE: DeviceType = DeviceType(0x100);

    fn build(_: Vec<OwnedFd>) -> Self {
        Self
    }
    fn request<M: GuestAddressSpace>(&mut self, _: u16, _: &Chain<M>) -> Option<u32> {
        Some(0)
    }
}

#[test]
fn a_device_that_cannot_be_on_the_bus_stays_in_its_window_when_the_guest_looks_there() {
    let mut host = FakeToolstack::new(InlineDevices::<Odd>::new);
    host.set_transports(TransportKind::Pci);
    let domain = host.create_guest(1);
    let device = DeviceConfig::generic(1, 0, Odd::DEVICE_TYPE);
    host.serve(&device);
    assert_eq!(PciFunction::vendor(&domain, 0, 1), Ok(u32::MAX));
    assert_eq!(host.window(&device).read(reg::DEVICE_ID), Odd::DEVICE_TYPE.0);
}
