//! A device to drive, and a driver to drive it with: registers and one split ring.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part")]

mod recorder;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio_mmio_dev::vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap};
use virtio_mmio_dev::{
    ConfigWrite, Interrupt, LiveQueue, MmioTransport, MmioTransportBuilder, QueueConfig, Register,
    SharedMemory, Status, VirtioDevice, feature,
};

#[allow(unused_imports, reason = "each test crate uses a part")]
pub use recorder::{Call, Effect, Recorder};

pub type Ram = GuestMemoryMmap<()>;

/// A device with a bit of everything.
pub struct TestDevice {
    pub features: u64,
    /// Refused by `validate_features` when taken.
    pub refused: u64,
    pub accepted: Option<u64>,
    pub sizes: Vec<u16>,
    pub config: Vec<u8>,
    /// The one writable field of the configuration space.
    pub writable: std::ops::Range<usize>,
    pub resets: u32,
}

impl Default for TestDevice {
    fn default() -> Self {
        Self {
            features: feature::INDIRECT_DESC | feature::EVENT_IDX | 0b1011,
            refused: 0b1000,
            accepted: None,
            sizes: vec![16, 64],
            config: (1..=12).collect(),
            writable: 8..9,
            resets: 0,
        }
    }
}

impl VirtioDevice for TestDevice {
    fn device_type(&self) -> u32 {
        2
    }
    fn vendor_id(&self) -> u32 {
        0x1234_5678
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &self.sizes
    }
    fn features(&self) -> u64 {
        self.features
    }
    fn validate_features(&self, driver: u64) -> bool {
        driver & self.refused == 0
    }
    fn accept_features(&mut self, driver: u64) {
        self.accepted = Some(driver);
    }
    fn config(&self) -> &[u8] {
        &self.config
    }
    fn write_config(&mut self, offset: usize, data: &[u8]) -> ConfigWrite {
        let mut written = ConfigWrite::Ignored;
        for (at, byte) in (offset..).zip(data) {
            if self.writable.contains(&at) {
                let old = std::mem::replace(&mut self.config[at], *byte);
                written = if old == *byte { ConfigWrite::Unchanged } else { ConfigWrite::Changed };
            }
        }
        written
    }
    fn save_state(&self) -> Vec<u8> {
        self.config[self.writable.clone()].to_vec()
    }
    fn restore_state(&mut self, state: &[u8]) -> bool {
        let fits = state.len() == self.writable.len();
        if fits {
            self.config[self.writable.clone()].copy_from_slice(state);
        }
        fits
    }
    fn shared_memory(&self, id: u32) -> Option<SharedMemory> {
        (id == 1).then_some(SharedMemory { base: 0x1_2345_6000, len: 0x2_0000_1000 })
    }
    fn reset(&mut self) {
        self.resets += 1;
    }
}

/// The driver's view of a window.
pub struct Window {
    pub transport: MmioTransport<TestDevice>,
    pub queues: Recorder,
    /// Rising edges of the line.
    pub edges: Arc<AtomicU64>,
}

impl Window {
    pub fn new(device: TestDevice) -> Self {
        Self::on_host(device, |builder| builder)
    }

    /// The window of a device whose host is told what it adds.
    pub fn on_host(
        device: TestDevice,
        host: impl FnOnce(MmioTransportBuilder<TestDevice>) -> MmioTransportBuilder<TestDevice>,
    ) -> Self {
        let edges = Arc::new(AtomicU64::new(0));
        let line = Arc::clone(&edges);
        let builder = MmioTransport::builder(device, move || {
            line.fetch_add(1, Ordering::Relaxed);
        });
        let transport = host(builder).build().unwrap();
        Self { transport, queues: Recorder::default(), edges }
    }

    pub fn edges(&self) -> u64 {
        self.edges.load(Ordering::Relaxed)
    }

    pub fn read(&mut self, register: Register) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(register.offset(), &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&mut self, register: Register, value: u32) -> Effect {
        self.write_bytes(register.offset(), &value.to_le_bytes())
    }

    pub fn write_bytes(&mut self, offset: u64, data: &[u8]) -> Effect {
        self.queues.calls.clear();
        let outcome = self.transport.write(offset, data, &mut self.queues);
        Effect::of(offset, data, outcome, &self.queues.calls)
    }

    /// Whatever drains has stopped.
    pub fn stopped(&mut self) {
        (0..3).for_each(|queue| self.transport.queue_stopped(queue));
    }

    /// A write that asks nothing of the caller, whether it is taken or ignored.
    pub fn set(&mut self, register: Register, value: u32) {
        let effect = self.write(register, value);
        assert!(matches!(effect, Effect::None | Effect::Ignored(_)), "{register:?}: {effect:?}");
    }

    pub fn status(&mut self) -> u32 {
        self.read(Register::Status)
    }

    pub fn offer(&mut self, features: u64) {
        self.set(Register::DriverFeaturesSel, 0);
        self.set(Register::DriverFeatures, features as u32);
        self.set(Register::DriverFeaturesSel, 1);
        self.set(Register::DriverFeatures, (features >> 32) as u32);
    }

    /// Up to and including FEATURES_OK.
    pub fn negotiate(&mut self, features: u64) {
        self.set(Register::Status, 1);
        self.set(Register::Status, 3);
        self.offer(features);
        self.set(Register::Status, 11);
    }

    pub fn set_up_queue(&mut self, index: u32, size: u16, at: &RingAt) {
        self.set(Register::QueueSel, index);
        self.set(Register::QueueSize, size.into());
        for (low, high, addr) in [
            (Register::QueueDescLow, Register::QueueDescHigh, at.desc),
            (Register::QueueDriverLow, Register::QueueDriverHigh, at.avail),
            (Register::QueueDeviceLow, Register::QueueDeviceHigh, at.used),
        ] {
            self.set(low, addr as u32);
            self.set(high, (addr >> 32) as u32);
        }
    }

    /// All the way to a live queue 0 of 16 descriptors.
    pub fn live(features: u64) -> Self {
        let mut window = Self::new(TestDevice::default());
        window.negotiate(features);
        window.set_up_queue(0, 16, &RING);
        window.set(Register::QueueReady, 1);
        assert_eq!(window.write(Register::Status, 15), Effect::Activate);
        window
    }

    pub fn reset(&mut self) {
        assert_eq!(self.write(Register::Status, 0), Effect::Reset);
        self.stopped();
    }
}

/// Where a ring is.
#[derive(Clone, Copy, Debug)]
pub struct RingAt {
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
}

pub const RING: RingAt = RingAt { desc: 0x1000, avail: 0x2000, used: 0x3000 };
/// Indirect tables.
pub const TABLES: u64 = 0x4000;
/// Buffers.
pub const DATA: u64 = 0x1_0000;
pub const RAM_SIZE: usize = 0x4_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub fn ram() -> Ram {
    Ram::from_ranges(&[(GuestAddress(0), RAM_SIZE)]).unwrap()
}

/// A descriptor as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desc(pub u64, pub u32, pub u16, pub u16);

impl Desc {
    pub fn bytes(self) -> [u8; 16] {
        let Self(addr, len, flags, next) = self;
        let bits = u128::from(addr)
            | u128::from(len) << 64
            | u128::from(flags) << 96
            | u128::from(next) << 112;
        bits.to_le_bytes()
    }
}

/// A driver's side of one ring.
pub struct Ring<'a, M: GuestMemory> {
    pub mem: &'a M,
    pub at: RingAt,
    pub size: u16,
    pub avail_idx: u16,
    pub last_used: u16,
}

impl<'a, M: GuestMemory> Ring<'a, M> {
    pub fn new(mem: &'a M, size: u16) -> Self {
        Self { mem, at: RING, size, avail_idx: 0, last_used: 0 }
    }

    pub fn config(&self, event_idx: bool) -> QueueConfig {
        QueueConfig {
            index: 0,
            size: self.size,
            size_max: self.size,
            desc_table: self.at.desc,
            avail_ring: self.at.avail,
            used_ring: self.at.used,
            event_idx,
            indirect: true,
            next_avail: self.avail_idx,
            next_used: self.last_used,
        }
    }

    fn put<T: virtio_mmio_dev::vm_memory::ByteValued>(&self, value: T, addr: u64) {
        self.mem.write_obj(value, GuestAddress(addr)).unwrap();
    }

    fn get<T: virtio_mmio_dev::vm_memory::ByteValued>(&self, addr: u64) -> T {
        self.mem.read_obj(GuestAddress(addr)).unwrap()
    }

    pub fn desc(&self, index: u16, desc: Desc) {
        let addr = self.at.desc + u64::from(index) * 16;
        self.mem.write_slice(&desc.bytes(), GuestAddress(addr)).unwrap();
    }

    pub fn table(&self, addr: u64, descs: &[Desc]) {
        for (addr, desc) in (addr..).step_by(16).zip(descs) {
            self.mem.write_slice(&desc.bytes(), GuestAddress(addr)).unwrap();
        }
    }

    /// Puts `head` into the available ring, not yet visible.
    pub fn entry(&mut self, head: u16) {
        let slot = u64::from(self.avail_idx % self.size);
        self.put(head, self.at.avail + 4 + slot * 2);
        self.avail_idx = self.avail_idx.wrapping_add(1);
    }

    pub fn publish(&self) {
        self.put(self.avail_idx, self.at.avail + 2);
    }

    /// Makes `head` available.
    pub fn offer(&mut self, head: u16) {
        self.entry(head);
        self.publish();
    }

    pub fn set_avail_idx(&self, idx: u16) {
        self.put(idx, self.at.avail + 2);
    }

    pub fn set_avail_flags(&self, flags: u16) {
        self.put(flags, self.at.avail);
    }

    pub fn set_used_event(&self, event: u16) {
        self.put(event, self.at.avail + 4 + u64::from(self.size) * 2);
    }

    pub fn avail_event(&self) -> u16 {
        self.get(self.at.used + 4 + u64::from(self.size) * 8)
    }

    pub fn used_flags(&self) -> u16 {
        self.get(self.at.used)
    }

    pub fn used_idx(&self) -> u16 {
        self.get(self.at.used + 2)
    }

    /// The used entries since the last call.
    pub fn used(&mut self) -> Vec<(u32, u32)> {
        let mut entries = Vec::new();
        while self.last_used != self.used_idx() {
            let slot = u64::from(self.last_used % self.size);
            let addr = self.at.used + 4 + slot * 8;
            entries.push((self.get(addr), self.get(addr + 4)));
            self.last_used = self.last_used.wrapping_add(1);
        }
        entries
    }
}

/// A live queue over `mem` of a live device whose interrupt has the returned window.
pub fn live_queue<'a>(
    ring: &Ring<'a, Ram>,
    event_idx: bool,
) -> (LiveQueue<&'a Ram, &'a Ram>, Window) {
    let window = Window::live(feature::VERSION_1);
    let queue = new_queue(&ring.config(event_idx), ring.mem, window.transport.interrupt());
    (queue, window)
}

pub fn new_queue<'a>(
    config: &QueueConfig,
    mem: &'a Ram,
    interrupt: Interrupt,
) -> LiveQueue<&'a Ram, &'a Ram> {
    LiveQueue::new(config, &mem, mem, interrupt).unwrap()
}

pub fn needs_reset(window: &Window) -> bool {
    window.transport.status().contains(Status::DEVICE_NEEDS_RESET)
}
