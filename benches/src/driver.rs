//! The least a guest's block driver does, over a split queue with `VIRTIO_F_EVENT_IDX`.

use crate::queue_layout::{CHAIN, QueueLayout, REQUEST};
use crate::shared::{Descriptor, RequestArea, UsedEntry, view};

use virtio_mmio_dev::Register;
use vm_memory::VolatileSlice;

use std::sync::atomic::{AtomicU16, Ordering, fence};

/// `VIRTQ_DESC_F_NEXT` and `VIRTQ_DESC_F_WRITE` (virtio 1.2 §2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// No descriptors laid out yet: no request has this length.
const UNUSED: u32 = u32::MAX;

/// What a request asks for (virtio 1.2 §5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `VIRTIO_BLK_T_IN`
    Read = 0,
    /// `VIRTIO_BLK_T_OUT`
    Write = 1,
    /// `VIRTIO_BLK_T_FLUSH`, which has no data
    Flush = 4,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it asks for.
    pub kind: Kind,
    /// Position on the disk, in sectors of 512 bytes.
    pub sector: u64,
    /// Bytes of data.
    pub len: u32,
}

/// A request ended with another status than `VIRTIO_BLK_S_OK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The slot of the request.
    pub slot: u16,
    /// Its status (virtio 1.2 §5.2.6).
    pub status: u8,
}

/// A driver of one queue. As in Linux, header and status of a request lie together, and its
/// buffers are written down anew only for what differs from the slot's request before.
pub struct Driver<'m> {
    table: &'m [Descriptor],
    avail_index: &'m AtomicU16,
    avail_ring: &'m [AtomicU16],
    /// `used_event`: when the device is to interrupt (virtio 1.2 §2.7.7).
    used_event: &'m AtomicU16,
    used_index: &'m AtomicU16,
    used_ring: &'m [UsedEntry],
    /// `avail_event`: when the device wants to be notified (virtio 1.2 §2.7.10).
    avail_event: &'m AtomicU16,
    requests: &'m [RequestArea],
    memory: VolatileSlice<'m>,
    base: u64,
    layout: QueueLayout,
    /// By slot, what its descriptors say.
    laid_out: Vec<(Kind, u32)>,
    mask: u16,
    avail: u16,
    published: u16,
    used: u16,
    /// What `used_event` says.
    event: u16,
}

impl<'m> Driver<'m> {
    /// Lays out a queue in `memory`, which the device finds at `base`.
    ///
    /// # Panics
    /// If `memory` is smaller than the layout, or not aligned to a page.
    pub fn new(memory: VolatileSlice<'m>, base: u64, layout: QueueLayout) -> Self {
        let size = usize::from(layout.queue_size());
        let slots = usize::from(layout.slots());
        let (avail, used) = (layout.avail_ring(), layout.used_ring());
        let one = |offset| &view::<AtomicU16>(&memory, offset, 1)[0];
        Self {
            table: view(&memory, layout.desc_table(), size),
            avail_index: one(avail + 2),
            avail_ring: view(&memory, avail + 4, size),
            used_event: one(avail + 4 + size * 2),
            used_index: one(used + 2),
            used_ring: view(&memory, used + 4, size),
            avail_event: one(used + 4 + size * 8),
            requests: view(&memory, layout.requests(), slots),
            memory,
            base,
            layout,
            laid_out: vec![(Kind::Flush, UNUSED); slots],
            mask: layout.queue_size() - 1,
            avail: 0,
            published: 0,
            used: 0,
            event: 0,
        }
    }

    /// The register writes that initialise a device of virtio-mmio with this queue, up to
    /// `DRIVER_OK`. Takes no feature but `FLUSH`, `VERSION_1` and `EVENT_IDX`.
    pub fn handshake(layout: &QueueLayout, base: u64) -> impl Iterator<Item = (Register, u32)> {
        let low = move |offset: usize| (base + offset as u64) as u32;
        let high = move |offset: usize| ((base + offset as u64) >> 32) as u32;
        [
            (Register::Status, 1),
            (Register::Status, 3),
            (Register::DriverFeaturesSel, 0),
            (Register::DriverFeatures, 1 << 29 | 1 << 9),
            (Register::DriverFeaturesSel, 1),
            (Register::DriverFeatures, 1),
            (Register::Status, 11),
            (Register::QueueSize, layout.queue_size().into()),
            (Register::QueueDescLow, low(layout.desc_table())),
            (Register::QueueDescHigh, high(layout.desc_table())),
            (Register::QueueDriverLow, low(layout.avail_ring())),
            (Register::QueueDriverHigh, high(layout.avail_ring())),
            (Register::QueueDeviceLow, low(layout.used_ring())),
            (Register::QueueDeviceHigh, high(layout.used_ring())),
            (Register::QueueReady, 1),
            (Register::Status, 15),
        ]
        .into_iter()
    }

    /// Puts a request into `slot`, which is free. The device sees it once it is
    /// [published](Self::publish).
    ///
    /// # Panics
    /// For a slot beyond the layout, or more data than it has room for.
    #[inline]
    pub fn submit(&mut self, slot: u16, request: Request) {
        let Request { kind, sector, len } = request;
        if self.laid_out[usize::from(slot)] != (kind, len) {
            self.lay_out(slot, kind, len);
        }
        let area = &self.requests[usize::from(slot)];
        area.sector.store(sector.to_le(), Ordering::Relaxed);
        let at = usize::from(self.avail & self.mask);
        self.avail_ring[at].store((slot * CHAIN).to_le(), Ordering::Relaxed);
        self.avail = self.avail.wrapping_add(1);
    }

    /// Makes what was submitted available; `true` if the device wants to be notified of it.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.avail_index.store(self.avail.to_le(), Ordering::Release);
        // The device enables notifications, then looks at the index; the driver moves the index,
        // then looks whether they are enabled (virtio 1.2 §2.7.13.4.1).
        fence(Ordering::SeqCst);
        let event = u16::from_le(self.avail_event.load(Ordering::Relaxed));
        let added = self.avail.wrapping_sub(self.published);
        self.published = self.avail;
        self.avail.wrapping_sub(event).wrapping_sub(1) < added
    }

    /// Takes back what the device has completed: its slots are added to `done`.
    ///
    /// # Errors
    /// A request failed.
    ///
    /// # Panics
    /// If the device returns what is no chain of the driver's.
    #[inline]
    pub fn reap(&mut self, done: &mut Vec<u16>) -> Result<(), Failed> {
        let index = u16::from_le(self.used_index.load(Ordering::Acquire));
        while self.used != index {
            let entry = &self.used_ring[usize::from(self.used & self.mask)];
            let slot = (u32::from_le(entry.id.load(Ordering::Relaxed)) / u32::from(CHAIN)) as u16;
            let status = self.requests[usize::from(slot)].status.load(Ordering::Relaxed);
            if status != 0 {
                return Err(Failed { slot, status });
            }
            done.push(slot);
            self.used = self.used.wrapping_add(1);
        }
        Ok(())
    }

    /// Requests submitted and not taken back yet.
    pub fn in_flight(&self) -> u16 {
        self.avail.wrapping_sub(self.used)
    }

    /// Asks for an interrupt at the next completion; `false` if there is one already, which may
    /// come without any.
    pub fn enable_interrupts(&mut self) -> bool {
        self.set_used_event(self.used);
        fence(Ordering::SeqCst);
        u16::from_le(self.used_index.load(Ordering::Relaxed)) == self.used
    }

    /// Asks for no interrupt. To be said again at least every 16384 completions, as the index that
    /// asks comes round; most of the time this does nothing.
    #[inline]
    pub fn disable_interrupts(&mut self) {
        let behind = self.used.wrapping_sub(self.event);
        if !(1..=0x4000).contains(&behind) {
            self.set_used_event(self.used.wrapping_sub(1));
        }
    }

    fn set_used_event(&mut self, event: u16) {
        self.event = event;
        self.used_event.store(event.to_le(), Ordering::Relaxed);
    }

    /// The data of a slot's request.
    ///
    /// # Panics
    /// For a slot beyond the layout.
    pub fn data(&self, slot: u16, len: usize) -> VolatileSlice<'m> {
        let offset = self.data_offset(slot, len);
        self.memory.subslice(offset, len).expect("within the layout")
    }

    /// Requests of one size lie side by side, whatever the layout has room for: at a distance of
    /// 128 KiB, all of them would compete for the same few sets of a cache.
    fn data_offset(&self, slot: u16, len: usize) -> usize {
        assert!(slot < self.layout.slots() && len <= self.layout.data_len(), "{slot}: {len} bytes");
        self.layout.data() + usize::from(slot) * len
    }

    #[cold]
    fn lay_out(&mut self, slot: u16, kind: Kind, len: u32) {
        let area = self.layout.requests() + usize::from(slot) * REQUEST;
        let data = self.data_offset(slot, len as usize);
        let (kind_flags, first) = match kind {
            Kind::Read => (WRITE, 1),
            Kind::Write => (0, 1),
            Kind::Flush => (0, 2),
        };
        let head = slot * CHAIN;
        let set = |index: u16, at: usize, len: u32, flags: u16, next: u16| {
            self.table[usize::from(head + index)].set(
                self.base + at as u64,
                len,
                flags,
                head + next,
            );
        };
        set(0, area, 16, NEXT, first);
        set(1, data, len, NEXT | kind_flags, 2);
        set(2, area + 16, 1, WRITE, 0);
        self.requests[usize::from(slot)].kind.store((kind as u32).to_le(), Ordering::Relaxed);
        self.laid_out[usize::from(slot)] = (kind, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes as _, MmapRegion, VolatileMemory as _};

    const BASE: u64 = 0x1_0000_0000;
    const LAYOUT: QueueLayout = QueueLayout::new(4, 4096);
    const READ: Request = Request { kind: Kind::Read, sector: 7, len: 4096 };

    fn memory() -> MmapRegion<()> {
        MmapRegion::new(LAYOUT.len()).unwrap()
    }

    /// The device's part: completes what is available, in order, with `status`.
    struct Device<'m> {
        memory: VolatileSlice<'m>,
        next: u16,
    }

    impl<'m> Device<'m> {
        fn complete(&mut self, status: u8) -> bool {
            let (avail, used) = (LAYOUT.avail_ring(), LAYOUT.used_ring());
            let size = LAYOUT.queue_size();
            let old = self.next;
            while self.next != self.memory.read_obj::<u16>(avail + 2).unwrap() {
                let at = usize::from(self.next % size);
                let head: u16 = self.memory.read_obj(avail + 4 + at * 2).unwrap();
                self.memory.write_obj(u32::from(head), used + 4 + at * 8).unwrap();
                let slot = usize::from(head) / 3;
                self.memory.write_obj(status, LAYOUT.requests() + slot * 64 + 16).unwrap();
                self.next = self.next.wrapping_add(1);
            }
            self.memory.write_obj(self.next, used + 2).unwrap();
            // `vring_need_event` of linux/virtio_ring.h.
            let event: u16 = self.memory.read_obj(avail + 4 + usize::from(size) * 2).unwrap();
            self.next.wrapping_sub(event).wrapping_sub(1) < self.next.wrapping_sub(old)
        }
    }

    #[test]
    fn requests_are_laid_out_as_the_specification_says() {
        let memory = memory();
        let all = memory.as_volatile_slice();
        let mut driver = Driver::new(all, BASE, LAYOUT);
        driver.submit(1, READ);
        let descriptor = |index: usize| -> (u64, u32, u16, u16) {
            let at = LAYOUT.desc_table() + index * 16;
            (
                all.read_obj(at).unwrap(),
                all.read_obj(at + 8).unwrap(),
                all.read_obj(at + 12).unwrap(),
                all.read_obj(at + 14).unwrap(),
            )
        };
        let area = BASE + LAYOUT.requests() as u64 + 64;
        let data = BASE + LAYOUT.data() as u64 + 4096;
        assert_eq!(descriptor(3), (area, 16, 1, 4));
        assert_eq!(descriptor(4), (data, 4096, 3, 5));
        assert_eq!(descriptor(5), (area + 16, 1, 2, 3));
        let header: [u64; 2] = all.read_obj(LAYOUT.requests() + 64).unwrap();
        assert_eq!(header, [0, 7], "VIRTIO_BLK_T_IN, sector 7");

        driver.submit(2, Request { kind: Kind::Write, ..READ });
        assert_eq!(descriptor(7).2, 1, "the device reads what is written");
        driver.submit(3, Request { kind: Kind::Flush, sector: 0, len: 0 });
        assert_eq!(descriptor(9).3, 11, "a flush has no data");
    }

    #[test]
    fn a_device_is_notified_when_the_index_passes_its_event() {
        let memory = memory();
        let all = memory.as_volatile_slice();
        let mut driver = Driver::new(all, BASE, LAYOUT);
        let event = LAYOUT.used_ring() + 4 + usize::from(LAYOUT.queue_size()) * 8;
        driver.submit(0, READ);
        assert!(driver.publish(), "the first, as the event is 0");
        driver.submit(1, READ);
        assert!(!driver.publish());
        all.write_obj(3_u16, event).unwrap();
        driver.submit(2, READ);
        assert!(!driver.publish(), "not the third");
        driver.submit(3, READ);
        assert!(driver.publish(), "the fourth");
        assert!(!driver.publish(), "nothing new");
    }

    #[test]
    fn a_device_is_asked_for_no_interrupt_however_often_the_index_comes_round() {
        let memory = memory();
        let all = memory.as_volatile_slice();
        let mut driver = Driver::new(all, BASE, LAYOUT);
        let (mut device, mut done) = (Device { memory: all, next: 0 }, Vec::new());
        for round in 0..20_000 {
            driver.disable_interrupts();
            (0..4).for_each(|slot| driver.submit(slot, READ));
            driver.publish();
            assert!(!device.complete(0), "an interrupt in round {round}");
            driver.reap(&mut done).unwrap();
            assert_eq!(done, [0, 1, 2, 3]);
            done.clear();
        }
        assert!(driver.enable_interrupts(), "all is taken back");
        driver.submit(0, READ);
        driver.publish();
        assert!(device.complete(0), "no interrupt when asked for");
        assert!(!driver.enable_interrupts(), "there is something to take back");
        assert_eq!(driver.in_flight(), 1);
    }

    #[test]
    fn a_request_that_failed_is_told() {
        let memory = memory();
        let all = memory.as_volatile_slice();
        let mut driver = Driver::new(all, BASE, LAYOUT);
        driver.submit(2, READ);
        driver.publish();
        Device { memory: all, next: 0 }.complete(1);
        assert_eq!(driver.reap(&mut Vec::new()), Err(Failed { slot: 2, status: 1 }));
    }
}
