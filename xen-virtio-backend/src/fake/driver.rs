//! A guest's driver of one queue.

use std::{
    array,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use super::{
    descriptor::{NEXT, descriptor},
    guest_kernel::GuestKernel,
    reg,
    shared_pages::SharedPages,
    wait::until,
    window::Window,
};

/// The most entries of a queue.
const QUEUE_SIZE: u16 = 16;

/// A driver of one queue of a device. It does what it is told, right or wrong: a test can put anything into its rings.
///
/// Its queue has 16 entries, or as many as the device allows. Each ring has a page of its own, of which the first
/// 16 entries are within reach whatever the queue's size.
#[derive(Debug)]
pub struct FakeDriver {
    window: Window,
    kernel: Arc<GuestKernel>,
    queue: u16,
    size: u16,
    desc: SharedPages,
    avail: SharedPages,
    used: SharedPages,
    avail_idx: u16,
    used_idx: u16,
}

/// A used entry (`virtq_used_elem`, virtio 1.2 §2.7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedElem {
    /// The first descriptor of the chain that was used.
    pub id: u32,
    /// How many bytes the device has written to it.
    pub len: u32,
}

impl FakeDriver {
    /// Initialises the device (virtio 1.2 §3.1.1), from its reset up to `DRIVER_OK`, with exactly these features and
    /// with queue 0.
    ///
    /// # Panics
    /// The device doesn't accept the features, or has no queue.
    pub fn start(window: Window, kernel: &Arc<GuestKernel>, features: u64) -> Self {
        let [driver] = Self::start_queues(window, kernel, features);
        driver
    }

    /// The same with several queues, from the first one on.
    ///
    /// # Panics
    /// The device doesn't accept the features, or has fewer queues.
    pub fn start_queues<const N: usize>(
        window: Window,
        kernel: &Arc<GuestKernel>,
        features: u64,
    ) -> [Self; N] {
        window.write(reg::STATUS, 0);
        assert_eq!(window.read(reg::STATUS), 0, "the device is reset");
        window.write(reg::STATUS, 1);
        window.write(reg::STATUS, 3);
        window.set_driver_features(features);
        window.write(reg::STATUS, 11);
        assert_eq!(window.read(reg::STATUS), 11, "the device accepts features {features:#x}");
        let queues = array::from_fn(|queue| Self::set_up(window.clone(), kernel, queue as u16));
        window.write(reg::STATUS, 15);
        queues
    }

    fn set_up(window: Window, kernel: &Arc<GuestKernel>, queue: u16) -> Self {
        window.write(reg::QUEUE_SEL, queue.into());
        let most = window.read(reg::QUEUE_SIZE_MAX);
        assert_ne!(most, 0, "the device has a queue {queue}");
        let size = u16::try_from(most).map_or(QUEUE_SIZE, |most| most.min(QUEUE_SIZE));
        let page = || kernel.share(kernel.alloc(1), 4096, false);
        let (desc, avail, used) = (page(), page(), page());
        window.write(reg::QUEUE_SIZE, size.into());
        window.write_address(reg::QUEUE_DESC, desc.device);
        window.write_address(reg::QUEUE_DRIVER, avail.device);
        window.write_address(reg::QUEUE_DEVICE, used.device);
        window.write(reg::QUEUE_READY, 1);
        let kernel = Arc::clone(kernel);
        Self { window, kernel, queue, size, desc, avail, used, avail_idx: 0, used_idx: 0 }
    }

    /// The device's registers and interrupt.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The page of the descriptor table.
    pub fn desc_table(&self) -> SharedPages {
        self.desc
    }

    /// The page of the available ring.
    pub fn avail_ring(&self) -> SharedPages {
        self.avail
    }

    /// The page of the used ring.
    pub fn used_ring(&self) -> SharedPages {
        self.used
    }

    /// Memory of `len` bytes for the device to read and write, zeroed.
    pub fn buffer(&self, len: u64) -> SharedPages {
        self.kernel.share(self.kernel.alloc(len.div_ceil(4096)), len, false)
    }

    /// A buffer with these bytes in it.
    pub fn filled(&self, bytes: &[u8]) -> SharedPages {
        let buffer = self.buffer(bytes.len() as u64);
        self.put(buffer.guest, bytes);
        buffer
    }

    /// Takes a buffer back from the device and frees it.
    ///
    /// # Panics
    /// As of [`GuestKernel::unshare`]: it was granted, and is still mapped.
    pub fn release(&self, buffer: SharedPages) {
        let shared = self.kernel.unshare(buffer.device);
        self.kernel.free(shared.guest, shared.pages);
    }

    /// Writes to the guest's memory.
    ///
    /// # Panics
    /// It isn't the guest's.
    pub fn put(&self, guest: u64, bytes: &[u8]) {
        self.kernel.ram().write(guest, bytes).expect("memory of the guest's");
    }

    /// Reads from the guest's memory.
    ///
    /// # Panics
    /// It isn't the guest's.
    pub fn get<const N: usize>(&self, guest: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.kernel.ram().read(guest, &mut bytes).expect("memory of the guest's");
        bytes
    }

    /// Writes one descriptor: where the buffer is for the device, its length, its flags, and the index of the next one.
    pub fn describe(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let at = self.desc.guest + u64::from(index) * 16;
        self.put(at, &descriptor(addr, len, flags, next));
    }

    /// Writes a chain from descriptor `first` on: the address for the device, the length, and the flags without `NEXT`
    /// of each buffer.
    pub fn chain(&self, first: u16, buffers: &[(u64, u32, u16)]) {
        for (&(addr, len, flags), index) in buffers.iter().zip(first..) {
            let last = usize::from(index - first) + 1 == buffers.len();
            self.describe(index, addr, len, if last { flags } else { flags | NEXT }, index + 1);
        }
    }

    /// Makes the chain that begins with descriptor `head` available, and notifies the device.
    pub fn offer(&mut self, head: u16) {
        let at = self.avail.guest + 4 + u64::from(self.avail_idx % self.size) * 2;
        self.put(at, &head.to_le_bytes());
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.set_avail_idx(self.avail_idx);
        self.kick();
    }

    /// Says how many chains were made available so far, true or not.
    pub fn set_avail_idx(&mut self, index: u16) {
        self.avail_idx = index;
        fence(Ordering::SeqCst);
        self.put(self.avail.guest + 2, &index.to_le_bytes());
    }

    /// Notifies the device.
    pub fn kick(&self) {
        self.window.write(reg::QUEUE_NOTIFY, self.queue.into());
    }

    /// Whether there is a used entry that wasn't taken.
    pub fn is_answered(&self) -> bool {
        u16::from_le_bytes(self.get(self.used.guest + 2)) != self.used_idx
    }

    /// Takes the next used entry, and waits for it.
    ///
    /// # Panics
    /// It doesn't come within [`PATIENCE`](super::PATIENCE).
    pub fn used(&mut self) -> UsedElem {
        until("a used entry", || self.is_answered());
        fence(Ordering::SeqCst);
        let at = self.used.guest + 4 + u64::from(self.used_idx % self.size) * 8;
        self.used_idx = self.used_idx.wrapping_add(1);
        let id = u32::from_le_bytes(self.get(at));
        UsedElem { id, len: u32::from_le_bytes(self.get(at + 4)) }
    }

    /// One request at a time: describes it from descriptor 0 on, makes it available, waits until it is used, and gives
    /// how many bytes the device has written.
    ///
    /// # Panics
    /// It isn't used within [`PATIENCE`](super::PATIENCE), or another one is.
    pub fn submit(&mut self, buffers: &[(u64, u32, u16)]) -> u32 {
        self.chain(0, buffers);
        self.offer(0);
        let used = self.used();
        assert_eq!(used.id, 0, "the chain that was made available");
        used.len
    }

    /// Waits until the device asks to be reset (`DEVICE_NEEDS_RESET`).
    ///
    /// # Panics
    /// It doesn't within [`PATIENCE`](super::PATIENCE).
    pub fn wait_needs_reset(&self) {
        until("DEVICE_NEEDS_RESET", || self.window.read(reg::STATUS) & 64 != 0);
    }
}
