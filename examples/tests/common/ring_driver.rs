//! A driver without scruples: it writes whatever a test likes into its rings.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    guest_kernel::{GuestKernel, Shared},
    window::{Window, reg},
};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;

pub const FEATURE_FLUSH: u64 = 1 << 9;
pub const CONFIG_WCE: u64 = 1 << 11;
pub const MQ: u64 = 1 << 12;
pub const INDIRECT_DESC: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;

/// How long an answer may take, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A queue of one device, and the means to break it.
pub struct RingDriver {
    pub window: Window,
    kernel: Arc<GuestKernel>,
    queue: u16,
    size: u16,
    /// The three rings, on pages of their own.
    pub desc: Shared,
    pub avail: Shared,
    pub used: Shared,
    avail_idx: u16,
    used_idx: u16,
}

/// A used entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub id: u32,
    pub len: u32,
}

impl RingDriver {
    /// Initialises the device up to `DRIVER_OK` with a queue of 16 entries.
    pub fn start(window: Window, kernel: &Arc<GuestKernel>, features: u64) -> Self {
        let [driver] = Self::start_queues(window, kernel, features);
        driver
    }

    /// The same with several queues, from the first one on.
    pub fn start_queues<const N: usize>(
        window: Window,
        kernel: &Arc<GuestKernel>,
        features: u64,
    ) -> [Self; N] {
        window.write(reg::STATUS, 0);
        assert_eq!(window.read(reg::STATUS), 0, "reset");
        window.write(reg::STATUS, 1);
        window.write(reg::STATUS, 3);
        window.set_driver_features(features);
        window.write(reg::STATUS, 11);
        assert_eq!(window.read(reg::STATUS), 11, "the features are taken");
        let queues =
            std::array::from_fn(|queue| Self::set_up(window.clone(), kernel, queue as u16));
        window.write(reg::STATUS, 15);
        queues
    }

    fn set_up(window: Window, kernel: &Arc<GuestKernel>, queue: u16) -> Self {
        let page = || kernel.share(kernel.alloc(1), 4096, false);
        let driver = Self {
            window,
            kernel: Arc::clone(kernel),
            queue,
            size: 16,
            desc: page(),
            avail: page(),
            used: page(),
            avail_idx: 0,
            used_idx: 0,
        };
        let window = &driver.window;
        window.write(reg::QUEUE_SEL, queue.into());
        window.write(reg::QUEUE_SIZE, driver.size.into());
        for (register, ring) in [
            (reg::QUEUE_DESC, driver.desc),
            (reg::QUEUE_DRIVER, driver.avail),
            (reg::QUEUE_DEVICE, driver.used),
        ] {
            window.write(register, ring.device as u32);
            window.write(register + 4, (ring.device >> 32) as u32);
        }
        window.write(reg::QUEUE_READY, 1);
        driver
    }

    /// Memory for a request.
    pub fn buffer(&self, len: u64) -> Shared {
        self.kernel.share(self.kernel.alloc(len.div_ceil(4096)), len, false)
    }

    /// A buffer with something in it.
    pub fn filled(&self, bytes: &[u8]) -> Shared {
        let buffer = self.buffer(bytes.len() as u64);
        self.put(buffer.guest, bytes);
        buffer
    }

    /// A request's header (virtio 1.2 §5.2.6).
    pub fn header(&self, kind: u32, sector: u64) -> Shared {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.filled(&header)
    }

    pub fn put(&self, guest: u64, bytes: &[u8]) {
        self.kernel.ram().write(guest, bytes).unwrap();
    }

    pub fn get<const N: usize>(&self, guest: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.kernel.ram().read(guest, &mut bytes).unwrap();
        bytes
    }

    /// Writes one descriptor.
    pub fn describe(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let at = self.desc.guest + u64::from(index) * 16;
        self.put(at, &descriptor(addr, len, flags, next));
    }

    /// Writes a chain from descriptor `first` on: the address, length and flags of each but `NEXT`.
    pub fn chain(&self, first: u16, buffers: &[(u64, u32, u16)]) {
        for (&(addr, len, flags), index) in buffers.iter().zip(first..) {
            let last = usize::from(index - first) + 1 == buffers.len();
            self.describe(index, addr, len, if last { flags } else { flags | NEXT }, index + 1);
        }
    }

    /// Makes a chain available and kicks.
    pub fn offer(&mut self, head: u16) {
        let at = self.avail.guest + 4 + u64::from(self.avail_idx % self.size) * 2;
        self.put(at, &head.to_le_bytes());
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.set_avail_idx(self.avail_idx);
        self.kick();
    }

    /// Says how many chains there are, true or not.
    pub fn set_avail_idx(&mut self, index: u16) {
        self.avail_idx = index;
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.put(self.avail.guest + 2, &index.to_le_bytes());
    }

    pub fn kick(&self) {
        self.window.write(reg::QUEUE_NOTIFY, self.queue.into());
    }

    /// The next used entry, waited for.
    pub fn used(&mut self) -> Used {
        until("a used entry", || {
            u16::from_le_bytes(self.get(self.used.guest + 2)) != self.used_idx
        });
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let at = self.used.guest + 4 + u64::from(self.used_idx % self.size) * 8;
        self.used_idx = self.used_idx.wrapping_add(1);
        let id = u32::from_le_bytes(self.get(at));
        Used { id, len: u32::from_le_bytes(self.get(at + 4)) }
    }

    /// Whether a used entry waits.
    pub fn is_answered(&self) -> bool {
        u16::from_le_bytes(self.get(self.used.guest + 2)) != self.used_idx
    }

    /// An ordinary request, by descriptors 0 to 2: its status and used length. `data` is read into for
    /// `IN`, written from else.
    pub fn request(&mut self, kind: u32, sector: u64, data: Option<(u64, u32)>) -> (u8, u32) {
        let header = self.header(kind, sector);
        let status = self.filled(&[0xff]);
        let data_flags = if kind == IN { WRITE } else { 0 };
        let mut chain = vec![(header.device, 16, 0)];
        chain.extend(data.map(|(addr, len)| (addr, len, data_flags)));
        chain.push((status.device, 1, WRITE));
        self.chain(0, &chain);
        self.offer(0);
        let used = self.used();
        assert_eq!(used.id, 0, "the request's own head");
        let [code] = self.get(status.guest);
        for page in [header, status] {
            self.release(page);
        }
        (code, used.len)
    }

    /// Waits until the device asks to be reset.
    pub fn wait_needs_reset(&self) {
        until("DEVICE_NEEDS_RESET", || self.window.read(reg::STATUS) & 64 != 0);
    }

    /// Takes a buffer back from the device.
    pub fn release(&self, buffer: Shared) {
        let shared = self.kernel.unshare(buffer.device);
        self.kernel.free(shared.guest, shared.pages());
    }
}

/// A descriptor's 16 bytes (virtio 1.2 §2.7.5).
pub fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&addr.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

/// Waits until `done`, or fails.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::yield_now();
    }
}
