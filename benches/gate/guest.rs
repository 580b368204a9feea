//! A guest's driver whose requests are laid out once: after that it does the least that a driver
//! can, so that what is counted is the device's.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering, fence};

use virtio_dev::fake::NoQueues;
use virtio_dev::{QueueConfig, VirtioDevice, WriteOutcome};
use virtio_mmio_dev::{MmioTransport, Register};
use vm_memory::{Bytes as _, VolatileArrayRef, VolatileMemory as _, VolatileSlice};

/// Requests there is room for.
const SLOTS: u16 = 32;
/// Where things are. Each part begins on a page of its own.
const AVAIL_RING: usize = 0x4000;
const USED_RING: usize = 0x5000;
const REQUESTS: usize = 0x8000;
const TABLES: usize = 0x9000;
const DATA: usize = 0x1_1000;
/// Header and status of a request lie together in a cache line, as in Linux.
const REQUEST_LEN: usize = 64;
const STATUS: usize = 16;
/// `struct virtq_desc` (virtio 1.2 §2.7.5).
const DESCRIPTOR_LEN: usize = 16;
/// Descriptors of an indirect table.
const TABLE_LEN: usize = 32;
/// Data buffers of a page each don't touch, so that no two of them are one piece of memory.
const STRIDE: usize = 0x2000;
const SEGMENTS_MAX: usize = 16;
/// What a guest has of memory: whole chunks of 2 MiB, as they are mapped.
pub(crate) const MEMORY_LEN: usize =
    (DATA + SLOTS as usize * SEGMENTS_MAX * STRIDE).next_multiple_of(2 << 20);
/// The largest queue, every slot with the most segments.
pub(crate) const QUEUE_SIZE: u16 = 1024;

/// `VIRTQ_DESC_F_NEXT`, `_WRITE` and `_INDIRECT` (virtio 1.2 §2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// What all requests are (virtio 1.2 §5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `VIRTIO_BLK_T_IN`
    Read = 0,
    /// `VIRTIO_BLK_T_OUT`
    Write = 1,
    /// `VIRTIO_BLK_T_FLUSH`
    Flush = 4,
    /// `VIRTIO_BLK_T_DISCARD`, of one range of 4 KiB
    Discard = 11,
}

/// How a request looks in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    /// Data buffers, of a page each; one for a discard, none for a flush.
    pub(crate) segments: usize,
    /// The chain is an indirect descriptor's (virtio 1.2 §2.7.5.3).
    pub(crate) indirect: bool,
}

impl Shape {
    pub(crate) const fn new(kind: Kind, segments: usize) -> Self {
        Self { kind, segments, indirect: false }
    }

    fn chain(self) -> usize {
        self.segments + 2
    }

    /// The least queue that has room for every slot.
    fn queue_size(self) -> u16 {
        let chain = if self.indirect { 1 } else { self.chain() };
        (usize::from(SLOTS) * chain).next_power_of_two() as u16
    }
}

/// The driver of one queue with `VIRTIO_F_EVENT_IDX`.
pub(crate) struct Guest {
    base: u64,
    mask: u16,
    /// Descriptors from one slot's first to the next's.
    distance: u16,
    avail_index: &'static AtomicU16,
    avail_ring: VolatileArrayRef<'static, u16>,
    used_event: &'static AtomicU16,
    used_index: &'static AtomicU16,
    /// Pairs of a head and a length.
    used_ring: VolatileArrayRef<'static, u32>,
    avail_event: &'static AtomicU16,
    statuses: Vec<&'static AtomicU8>,
    avail: u16,
    published: u16,
    used: u16,
}

impl Guest {
    /// Lays out requests in `memory`, which the device finds at `base`.
    pub(crate) fn new(memory: VolatileSlice<'static>, base: u64, shape: Shape) -> Self {
        let memory: &'static _ = Box::leak(Box::new(memory));
        let size = usize::from(shape.queue_size());
        for slot in 0..usize::from(SLOTS) {
            lay_out(memory, base, slot, shape);
        }
        let index = |offset| memory.get_atomic_ref::<AtomicU16>(offset).expect("an index");
        let status =
            |slot| memory.get_atomic_ref(REQUESTS + slot * REQUEST_LEN + STATUS).expect("a status");
        Self {
            base,
            mask: shape.queue_size() - 1,
            distance: if shape.indirect { 1 } else { shape.chain() as u16 },
            avail_index: index(AVAIL_RING + 2),
            avail_ring: memory.get_array_ref(AVAIL_RING + 4, size).expect("the available ring"),
            used_event: index(AVAIL_RING + 4 + size * 2),
            used_index: index(USED_RING + 2),
            used_ring: memory.get_array_ref(USED_RING + 4, size * 2).expect("the used ring"),
            avail_event: index(USED_RING + 4 + size * 8),
            statuses: (0..usize::from(SLOTS)).map(status).collect(),
            avail: 0,
            published: 0,
            used: 0,
        }
    }

    /// Initialises a device with this queue, every feature taken; gives the queue.
    pub(crate) fn start<D: VirtioDevice>(&self, transport: &mut MmioTransport<D>) -> QueueConfig {
        let mut offered = [0; 2];
        for (select, word) in offered.iter_mut().enumerate() {
            let _ = write(transport, Register::DeviceFeaturesSel, select as u32);
            let mut data = [0; 4];
            transport.read(Register::DeviceFeatures.offset(), &mut data);
            *word = u32::from_le_bytes(data);
        }
        let low = |offset: usize| (self.base + offset as u64) as u32;
        let high = |offset: usize| ((self.base + offset as u64) >> 32) as u32;
        for (register, value) in [
            (Register::Status, 3),
            (Register::DriverFeaturesSel, 0),
            (Register::DriverFeatures, offered[0]),
            (Register::DriverFeaturesSel, 1),
            (Register::DriverFeatures, offered[1]),
            (Register::Status, 11),
            (Register::QueueSize, u32::from(self.mask) + 1),
            (Register::QueueDescLow, low(0)),
            (Register::QueueDescHigh, high(0)),
            (Register::QueueDriverLow, low(AVAIL_RING)),
            (Register::QueueDriverHigh, high(AVAIL_RING)),
            (Register::QueueDeviceLow, low(USED_RING)),
            (Register::QueueDeviceHigh, high(USED_RING)),
            (Register::QueueReady, 1),
            (Register::Status, 15),
        ] {
            let outcome = write(transport, register, value);
            assert_eq!(outcome, WriteOutcome::Done, "the device takes the driver's set-up");
        }
        transport.queue(0).expect("a ready queue")
    }

    /// `depth` requests at once, served by `serve` until all are back.
    #[inline]
    pub(crate) fn round(&mut self, depth: u16, mut serve: impl FnMut()) {
        for slot in 0..depth {
            let at = usize::from(self.avail & self.mask);
            self.avail_ring.ref_at(at).store((slot * self.distance).to_le());
            self.avail = self.avail.wrapping_add(1);
        }
        std::hint::black_box(self.publish());
        let mut left = depth;
        loop {
            serve();
            left -= self.reap();
            if left == 0 {
                return;
            }
        }
    }

    /// Makes requests available; whether the device wants to be notified (virtio 1.2 §2.7.10).
    fn publish(&mut self) -> bool {
        self.avail_index.store(self.avail.to_le(), Ordering::Release);
        fence(Ordering::SeqCst);
        let event = u16::from_le(self.avail_event.load(Ordering::Relaxed));
        let added = self.avail.wrapping_sub(self.published);
        self.published = self.avail;
        self.avail.wrapping_sub(event).wrapping_sub(1) < added
    }

    /// Takes back what is done, and asks for an interrupt at the next; how many there were.
    fn reap(&mut self) -> u16 {
        let index = u16::from_le(self.used_index.load(Ordering::Acquire));
        let before = self.used;
        while self.used != index {
            let at = usize::from(self.used & self.mask) * 2;
            let head = u32::from_le(self.used_ring.ref_at(at).load());
            let slot = head as usize / usize::from(self.distance);
            assert_eq!(self.statuses[slot].swap(u8::MAX, Ordering::Relaxed), 0, "slot {slot}");
            self.used = self.used.wrapping_add(1);
        }
        self.used_event.store(self.used.to_le(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.used.wrapping_sub(before)
    }
}

pub(crate) fn write<D: VirtioDevice>(
    transport: &mut MmioTransport<D>,
    register: Register,
    value: u32,
) -> WriteOutcome {
    transport.write(register.offset(), &value.to_le_bytes(), &mut NoQueues)
}

fn lay_out(memory: &VolatileSlice<'_>, base: u64, slot: usize, shape: Shape) {
    let put = |value: u64, at: usize, len: usize| {
        memory.write_slice(&value.to_le_bytes()[..len], at).expect("within the memory");
    };
    let descriptor = |at: usize, addr: usize, len: usize, flags: u16, next: usize| {
        put(base + addr as u64, at, 8);
        put(len as u64, at + 8, 4);
        put(flags.into(), at + 12, 2);
        put(next as u64, at + 14, 2);
    };
    let request = REQUESTS + slot * REQUEST_LEN;
    // A page of the disk for each buffer.
    let sector = (slot * shape.segments * 8) as u64;
    put(shape.kind as u64, request, 8);
    put(if shape.kind == Kind::Discard { 0 } else { sector }, request + 8, 8);
    put(u8::MAX.into(), request + STATUS, 1);

    let chain = shape.chain();
    let (table, first) = if shape.indirect {
        let table = TABLES + slot * TABLE_LEN * DESCRIPTOR_LEN;
        descriptor(slot * DESCRIPTOR_LEN, table, chain * DESCRIPTOR_LEN, INDIRECT, 0);
        (table, 0)
    } else {
        (slot * chain * DESCRIPTOR_LEN, slot * chain)
    };
    let at = |index: usize| table + index * DESCRIPTOR_LEN;
    descriptor(at(0), request, STATUS, NEXT, first + 1);
    for segment in 0..shape.segments {
        let data = DATA + (slot * SEGMENTS_MAX + segment) * STRIDE;
        let (len, flags) = match shape.kind {
            Kind::Read => (4096, NEXT | WRITE),
            // `struct virtio_blk_discard_write_zeroes` (virtio 1.2 §5.2.6).
            Kind::Discard => {
                put(sector, data, 8);
                put(8, data + 8, 8);
                (16, NEXT)
            }
            Kind::Write | Kind::Flush => (4096, NEXT),
        };
        descriptor(at(1 + segment), data, len, flags, first + segment + 2);
    }
    descriptor(at(chain - 1), request + STATUS, 1, WRITE, 0);
}
