//! `virtio-drivers` on a guest's PCI bus (virtio 1.2 §4.1): the same accesses that its own transport makes to mapped
//! memory, by trapping ones.

use std::sync::Arc;

use virtio_dev::feature::ACCESS_PLATFORM;
use virtio_drivers::{
    Error, PhysAddr,
    device::blk::VirtIOBlk,
    transport::{DeviceStatus, DeviceType, InterruptStatus, Transport},
};
use xen_virtio_backend::fake::{GuestKernel, PciFunction, Sharing};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::virtio_driver::{Memory, set_kernel};

/// The disk's driver, on a bus of `xen_virtio_backend::fake`.
pub type PciBlkDriver = VirtIOBlk<Memory, PciRegisters<PciFunction>>;

/// The structures of a function that its driver has found (§4.1.4), by accesses that trap.
pub trait Structures {
    fn device_id(&self) -> u16;
    fn read_common(&self, offset: u64, size: u8) -> u64;
    fn write_common(&self, offset: u64, size: u8, value: u64);
    fn notify(&self, queue: u16, notify_off: u64);
    fn read_device(&self, offset: u64, size: u8) -> u64;
    fn write_device(&self, offset: u64, size: u8, value: u64);
    /// Reads the ISR status, which clears it.
    fn take_isr(&self) -> u8;
    /// Whether vectors 0 and 1 of MSI-X are set up.
    fn has_messages(&self) -> bool;
}

impl Structures for PciFunction {
    fn device_id(&self) -> u16 {
        self.read_config(2, 2) as u16
    }
    fn read_common(&self, offset: u64, size: u8) -> u64 {
        self.read_common(offset, size)
    }
    fn write_common(&self, offset: u64, size: u8, value: u64) {
        self.write_common(offset, size, value);
    }
    fn notify(&self, queue: u16, notify_off: u64) {
        self.notify(queue, notify_off);
    }
    fn read_device(&self, offset: u64, size: u8) -> u64 {
        self.read_device(offset, size)
    }
    fn write_device(&self, offset: u64, size: u8, value: u64) {
        self.write_device(offset, size, value);
    }
    fn take_isr(&self) -> u8 {
        self.take_isr()
    }
    fn has_messages(&self) -> bool {
        true
    }
}

/// Offsets of the common configuration (§4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
}

/// Runs the driver of a disk on this thread, with vector 0 for configuration changes and vector `1 + n` for queue n.
pub fn probe_on_bus(
    function: PciFunction,
    kernel: &Arc<GuestKernel>,
) -> Result<PciBlkDriver, Error> {
    set_kernel(kernel);
    VirtIOBlk::new(PciRegisters::new(function, kernel.sharing() == Sharing::Grant))
}

/// The registers of a device on the bus.
pub struct PciRegisters<S: Structures> {
    function: S,
    grants: bool,
}

impl<S: Structures> PciRegisters<S> {
    /// Of a driver whose guest grants its memory, or not.
    pub fn new(function: S, grants: bool) -> Self {
        Self { function, grants }
    }

    fn assign(&self, field: u64, vector: u16) {
        if self.function.has_messages() {
            self.function.write_common(field, 2, vector.into());
            let taken = self.function.read_common(field, 2);
            assert_eq!(taken, u64::from(vector), "the device takes the vector");
        }
    }

    fn write_half(&self, select: u64, at: u64, index: u64, value: u64) {
        self.function.write_common(select, 4, index);
        self.function.write_common(at, 4, value);
    }

    fn select(&self, queue: u16) {
        self.function.write_common(common::QUEUE_SELECT, 2, queue.into());
    }
}

impl<S: Structures> Transport for PciRegisters<S> {
    fn device_type(&self) -> DeviceType {
        let id = self.function.device_id() - 0x1040;
        u32::from(id).try_into().expect("a known device")
    }

    fn read_device_features(&mut self) -> u64 {
        let half = |index| {
            self.function.write_common(common::DEVICE_FEATURE_SELECT, 4, index);
            self.function.read_common(common::DEVICE_FEATURE, 4)
        };
        half(0) | half(1) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        let features = features | if self.grants { ACCESS_PLATFORM } else { 0 };
        for (index, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write_half(common::DRIVER_FEATURE_SELECT, common::DRIVER_FEATURE, index, half);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        self.function.read_common(common::QUEUE_SIZE, 2) as u32
    }

    fn notify(&mut self, queue: u16) {
        self.select(queue);
        let notify_off = self.function.read_common(common::QUEUE_NOTIFY_OFF, 2);
        self.function.notify(queue, notify_off);
    }

    fn get_status(&self) -> DeviceStatus {
        let status = self.function.read_common(common::DEVICE_STATUS, 1);
        DeviceStatus::from_bits_retain(status as u32)
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.function.write_common(common::DEVICE_STATUS, 1, status.bits().into());
        while status.is_empty() && !self.get_status().is_empty() {}
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        desc: PhysAddr,
        avail: PhysAddr,
        used: PhysAddr,
    ) {
        let function = &self.function;
        self.assign(common::CONFIG_MSIX_VECTOR, 0);
        self.select(queue);
        function.write_common(common::QUEUE_SIZE, 2, size.into());
        function.write_common(common::QUEUE_DESC, 8, desc);
        function.write_common(common::QUEUE_DRIVER, 8, avail);
        function.write_common(common::QUEUE_DEVICE, 8, used);
        self.assign(common::QUEUE_MSIX_VECTOR, queue + 1);
        function.write_common(common::QUEUE_ENABLE, 2, 1);
    }

    /// The specification has no way back but a reset, which comes after this.
    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.function.read_common(common::QUEUE_ENABLE, 2) == 1
    }

    /// With messages there is nothing to acknowledge.
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::from_bits_retain(self.function.take_isr().into())
    }

    fn read_config_generation(&self) -> u32 {
        self.function.read_common(common::CONFIG_GENERATION, 1) as u32
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let value = self.function.read_device(offset as u64, size_of::<T>() as u8);
        Ok(T::read_from_bytes(&value.to_le_bytes()[..size_of::<T>()]).expect("as long as a T"))
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        let mut data = [0; 8];
        data[..size_of::<T>()].copy_from_slice(value.as_bytes());
        let data = u64::from_le_bytes(data);
        self.function.write_device(offset as u64, size_of::<T>() as u8, data);
        Ok(())
    }
}

impl<S: Structures> Drop for PciRegisters<S> {
    fn drop(&mut self) {
        self.set_status(DeviceStatus::empty());
    }
}
