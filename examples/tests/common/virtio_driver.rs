//! What `virtio-drivers`, a driver written by others, needs of a guest: a way to registers that trap, and
//! memory to share with the device.

use std::{cell::RefCell, ptr::NonNull, sync::Arc};

use virtio_drivers::{
    BufferDirection, Error, Hal, PhysAddr,
    device::{blk::VirtIOBlk, rng::VirtIORng},
    transport::{DeviceStatus, DeviceType, InterruptStatus, Transport},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use virtio_dev::feature::ACCESS_PLATFORM;
use xen_virtio_backend::fake::{DeviceConfig, GuestKernel, Sharing, Window, reg};

use super::host::Host;

/// The driver under test's counterpart.
pub type BlkDriver = VirtIOBlk<Memory, Registers>;
/// An entropy device's driver.
pub type RngDriver = VirtIORng<Memory, Registers>;

thread_local! {
    /// Whose memory `Memory` hands out: `Hal` has no `self`.
    static KERNEL: RefCell<Option<Arc<GuestKernel>>> = const { RefCell::new(None) };
}

/// Runs the driver on this thread, in the guest of `window`, until it is dropped.
pub fn probe(window: Window, kernel: &Arc<GuestKernel>) -> Result<BlkDriver, Error> {
    set_kernel(kernel);
    VirtIOBlk::new(Registers { window, grants: kernel.sharing() == Sharing::Grant })
}

/// The same, of an entropy device.
pub fn probe_entropy(window: Window, kernel: &Arc<GuestKernel>) -> Result<RngDriver, Error> {
    set_kernel(kernel);
    VirtIORng::new(Registers { window, grants: kernel.sharing() == Sharing::Grant })
}

/// Whose memory this thread's drivers hand out.
pub fn set_kernel(kernel: &Arc<GuestKernel>) {
    KERNEL.set(Some(Arc::clone(kernel)));
}

fn kernel() -> Arc<GuestKernel> {
    KERNEL.with_borrow(|kernel| Arc::clone(kernel.as_ref().expect("probed on this thread")))
}

/// DMA memory of the guest that this thread is.
pub struct Memory;

// SAFETY: `dma_alloc` gives zeroed pages that the allocator gives to nobody else until they are freed.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let kernel = kernel();
        let guest = kernel.alloc(pages as u64);
        let len = pages * virtio_drivers::PAGE_SIZE;
        (kernel.share(guest, len as u64, false).device, kernel.pointer(guest, len))
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        let kernel = kernel();
        kernel.free(kernel.unshare(paddr).guest, pages as u64);
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("for the PCI transport only")
    }

    /// By way of pages of the buffer's own, at its own offset in a page, as Linux's swiotlb does.
    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let kernel = kernel();
        let len = buffer.len() as u64;
        let offset = buffer.cast::<u8>().addr().get() as u64 % 4096;
        let pages = (offset + len).div_ceil(4096);
        let guest = kernel.alloc(pages) + offset;
        if direction != BufferDirection::DeviceToDriver {
            // SAFETY: the caller's buffer is valid and nobody else's for the time of this call.
            let bytes = unsafe { buffer.as_ref() };
            kernel.ram().write(guest, bytes).unwrap();
        }
        kernel.share(guest, len, direction == BufferDirection::DriverToDevice).device
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let kernel = kernel();
        let guest = kernel.unshare(paddr).guest;
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: as in `share`.
            let bytes = unsafe { buffer.as_mut() };
            kernel.ram().read(guest, bytes).unwrap();
        }
        kernel.free(guest - guest % 4096, (guest % 4096 + buffer.len() as u64).div_ceil(4096));
    }
}

/// The registers, by trapping accesses (virtio 1.2 §4.2.2). `virtio-drivers`' own transport reads and
/// writes mapped memory, which can't trap here; this one makes the same accesses in the same order.
pub struct Registers {
    window: Window,
    /// Accept `ACCESS_PLATFORM`, of which the driver knows nothing: in a Linux guest too it is the layers
    /// below the driver, virtio's core and the DMA API, that negotiate it and translate addresses.
    grants: bool,
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        self.window.read(reg::DEVICE_ID).try_into().expect("a known device")
    }

    fn read_device_features(&mut self) -> u64 {
        self.window.device_features()
    }

    fn write_driver_features(&mut self, features: u64) {
        let platform = if self.grants { ACCESS_PLATFORM } else { 0 };
        self.window.set_driver_features(features | platform);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.window.write(reg::QUEUE_SEL, queue.into());
        self.window.read(reg::QUEUE_SIZE_MAX)
    }

    fn notify(&mut self, queue: u16) {
        self.window.write(reg::QUEUE_NOTIFY, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.window.read(reg::STATUS))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.window.write(reg::STATUS, status.bits());
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
        self.window.write(reg::QUEUE_SEL, queue.into());
        self.window.write(reg::QUEUE_SIZE, size);
        self.window.write_address(reg::QUEUE_DESC, desc);
        self.window.write_address(reg::QUEUE_DRIVER, avail);
        self.window.write_address(reg::QUEUE_DEVICE, used);
        self.window.write(reg::QUEUE_READY, 1);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.window.write(reg::QUEUE_SEL, queue.into());
        self.window.write(reg::QUEUE_READY, 0);
        while self.window.read(reg::QUEUE_READY) != 0 {}
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.window.write(reg::QUEUE_SEL, queue.into());
        self.window.read(reg::QUEUE_READY) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::from_bits_retain(self.window.ack_interrupt())
    }

    fn read_config_generation(&self) -> u32 {
        self.window.read(reg::CONFIG_GENERATION)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let value = self.window.read_sized(reg::CONFIG + offset as u64, size_of::<T>() as u8);
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
        self.window.write_sized(reg::CONFIG + offset as u64, size_of::<T>() as u8, data);
        Ok(())
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        self.set_status(DeviceStatus::empty());
    }
}

/// Reads a sector through a driver of its own.
pub fn read_sector(
    host: &Host,
    disk: &DeviceConfig,
    kernel: &Arc<GuestKernel>,
    sector: usize,
) -> [u8; 512] {
    let mut driver = probe(host.window(disk), kernel).expect("a device");
    let mut data = [0; 512];
    driver.read_blocks(sector, &mut data).unwrap();
    data
}
