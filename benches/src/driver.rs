//! The least a guest's block driver does: requests of 4 KiB, laid out once, over one queue.

use virtio_mmio_dev::Register;
use vm_memory::{Bytes, VolatileSlice};

use std::sync::atomic::{Ordering, fence};

/// Where the guest's RAM starts (`GUEST_RAM0_BASE`, xen/include/public/arch-arm.h).
pub const RAM: u64 = 0x4000_0000;
/// How much of it the driver needs.
pub const RAM_LEN: u64 = 2 << 20;
/// Bytes of data in each request.
pub const DATA_LEN: usize = 4096;

/// Descriptors in the queue: three for each of the 32 requests that fit.
const QUEUE_SIZE: u16 = 128;
const DESCRIPTORS: usize = 0;
const AVAIL: usize = 0x1000;
const USED: usize = 0x2000;
const HEADERS: usize = 0x3000;
const STATUSES: usize = 0x4000;
const DATA: usize = 0x10000;

/// `VIRTQ_DESC_F_NEXT` and `VIRTQ_DESC_F_WRITE` (virtio 1.2 §2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// What a request asks for (virtio 1.2 §5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `VIRTIO_BLK_T_IN`
    Read = 0,
    /// `VIRTIO_BLK_T_OUT`
    Write = 1,
}

/// A driver whose requests all have one kind, of which up to 32 are in flight.
pub struct Driver<'m> {
    memory: VolatileSlice<'m>,
    avail: u16,
    used: u16,
}

impl<'m> Driver<'m> {
    /// Lays out the queue and its requests in `memory`, the first [`RAM_LEN`] bytes at [`RAM`].
    pub fn new(memory: VolatileSlice<'m>, kind: Kind) -> Self {
        let driver = Self { memory, avail: 0, used: 0 };
        let data_flags = match kind {
            Kind::Read => NEXT | WRITE,
            Kind::Write => NEXT,
        };
        for slot in 0..32_u16 {
            let at = usize::from(slot);
            driver.store(HEADERS + at * 16, kind as u64);
            let head = slot * 3;
            driver.descriptor(head, HEADERS + at * 16, 16, NEXT);
            driver.descriptor(head + 1, DATA + at * DATA_LEN, DATA_LEN as u32, data_flags);
            driver.descriptor(head + 2, STATUSES + at, 1, WRITE);
        }
        driver
    }

    /// The register writes that initialise a device with this queue, up to `DRIVER_OK`. Takes no
    /// feature but `VERSION_1` and `VIRTIO_RING_F_EVENT_IDX`.
    pub fn handshake() -> impl Iterator<Item = (Register, u32)> {
        let address = |offset: usize| RAM as u32 + offset as u32;
        [
            (Register::Status, 1),
            (Register::Status, 3),
            (Register::DriverFeaturesSel, 0),
            (Register::DriverFeatures, 1 << 29 | 1 << 9),
            (Register::DriverFeaturesSel, 1),
            (Register::DriverFeatures, 1),
            (Register::Status, 11),
            (Register::QueueSize, QUEUE_SIZE.into()),
            (Register::QueueDescLow, address(DESCRIPTORS)),
            (Register::QueueDriverLow, address(AVAIL)),
            (Register::QueueDeviceLow, address(USED)),
            (Register::QueueReady, 1),
            (Register::Status, 15),
        ]
        .into_iter()
    }

    /// Makes the request in `slot`, below 32, available, at `sector` of the disk.
    pub fn submit(&mut self, slot: u16, sector: u64) {
        self.store(HEADERS + usize::from(slot) * 16 + 8, sector);
        self.store(AVAIL + 4 + usize::from(self.avail % QUEUE_SIZE) * 2, slot * 3);
        self.avail = self.avail.wrapping_add(1);
        fence(Ordering::Release);
        self.store(AVAIL + 2, self.avail);
    }

    /// Takes back what the device has completed; gives how many.
    ///
    /// # Panics
    /// If a request failed.
    pub fn reap(&mut self) -> u16 {
        let index = self.load::<u16>(USED + 2);
        fence(Ordering::Acquire);
        let done = index.wrapping_sub(self.used);
        while self.used != index {
            let head = self.load::<u32>(USED + 4 + usize::from(self.used % QUEUE_SIZE) * 8);
            assert_eq!(self.load::<u8>(STATUSES + head as usize / 3), 0, "status of {head}");
            self.used = self.used.wrapping_add(1);
        }
        // As a driver that wants an interrupt for the next one (virtio 1.2 §2.7.7).
        self.store(AVAIL + 4 + usize::from(QUEUE_SIZE) * 2, self.used);
        done
    }

    fn descriptor(&self, index: u16, buffer: usize, len: u32, flags: u16) {
        let at = DESCRIPTORS + usize::from(index) * 16;
        self.store(at, RAM + buffer as u64);
        self.store(at + 8, len);
        self.store(at + 12, flags);
        self.store(at + 14, index + 1);
    }

    fn store<T: vm_memory::ByteValued>(&self, offset: usize, value: T) {
        self.memory.write_obj(value, offset).expect("within the driver's memory");
    }

    fn load<T: vm_memory::ByteValued>(&self, offset: usize) -> T {
        self.memory.read_obj(offset).expect("within the driver's memory")
    }
}
