//! The driver's side of a queue, wherever its rings are.

use virtio_dev::QueueState;

use crate::memory::Memory;

const NEXT: u8 = 1;
const WRITE: u8 = 2;

/// The queue that its registers describe. What lies outside of memory is not written.
pub(crate) struct DriverRing<'a> {
    memory: &'a Memory,
    queue: &'a QueueState,
}

impl<'a> DriverRing<'a> {
    /// It.
    pub(crate) fn new(memory: &'a Memory, queue: &'a QueueState) -> Self {
        Self { memory, queue }
    }

    /// Fills a descriptor.
    pub(crate) fn descriptor(&self, index: u16, addr: u64, len: u32, flags: u8, next: u8) {
        let mut bytes = Vec::with_capacity(16);
        bytes.extend(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(u16::from(flags).to_le_bytes());
        bytes.extend(u16::from(next).to_le_bytes());
        if let Some(at) = self.queue.desc_table.checked_add(16 * u64::from(index)) {
            self.memory.put(at, &bytes);
        }
    }

    /// Makes a descriptor available.
    pub(crate) fn offer(&self, head: u8) {
        let (Some(index_at), size) = (self.queue.avail_ring.checked_add(2), self.queue.size.max(1))
        else {
            return;
        };
        let index = u16::from_le_bytes(self.memory.get(index_at));
        let slot = index_at.checked_add(2 + 2 * u64::from(index % size));
        self.memory.put(slot.unwrap_or(u64::MAX), &u16::from(head).to_le_bytes());
        self.memory.put(index_at, &index.wrapping_add(1).to_le_bytes());
    }

    /// Makes a request in three descriptors available: type, sector, sectors of data.
    pub(crate) fn request(&self, kind: u8, sector: u8, sectors: u8) {
        let (header, data, status) = (0x800_u64, 0x1000, 0x810);
        let mut bytes = Vec::with_capacity(16);
        bytes.extend(u64::from(kind).to_le_bytes());
        bytes.extend(u64::from(sector).to_le_bytes());
        self.memory.put(header, &bytes);
        let write = if kind == 1 { 0 } else { WRITE };
        self.descriptor(0, header, 16, NEXT, 1);
        self.descriptor(1, data, u32::from(sectors) * 512, NEXT | write, 2);
        self.descriptor(2, status, 1, WRITE, 0);
        self.offer(0);
    }
}
