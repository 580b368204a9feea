//! A driver's side of one split ring.

use virtio_dev::QueueConfig;
use virtio_dev::vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap};

pub type Ram = GuestMemoryMmap<()>;

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

    fn put<T: virtio_dev::vm_memory::ByteValued>(&self, value: T, addr: u64) {
        self.mem.write_obj(value, GuestAddress(addr)).unwrap();
    }

    fn get<T: virtio_dev::vm_memory::ByteValued>(&self, addr: u64) -> T {
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
