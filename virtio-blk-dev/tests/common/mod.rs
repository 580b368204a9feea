//! A guest's driver, without the guest: rings in memory, and a worker on the other end.
#![allow(dead_code, unreachable_pub)]

pub mod late;
mod setup;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio_blk_dev::fake::FakeImage;
use virtio_blk_dev::{
    BlockConfig, BlockDevice, Engine, Image, Progress, RateLimiter, SyncEngine, Worker,
};
use virtio_dev::fake::NoQueues;
use virtio_dev::{LiveQueue, WriteOutcome};
use virtio_mmio_dev::{MmioTransport, Register};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryMmap};

pub use wire::*;

pub type Memory = GuestMemoryMmap<()>;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const DESC: u64 = 0x1_0000;
const AVAIL: u64 = 0x3_0000;
pub const USED: u64 = 0x4_0000;
const TABLES: u64 = 0x5_0000;
const HEAP: u64 = 0x20_0000;
pub const MEMORY_END: u64 = 0x80_0000;

/// No queue is larger; one of 256 takes Miri two seconds to set up.
const QUEUE_SIZE_MAX: u16 = if cfg!(miri) { 64 } else { 32768 };

/// One buffer of a request.
#[derive(Clone, Copy, Debug)]
pub struct Buf {
    pub addr: u64,
    pub len: u32,
    pub write: bool,
}

/// How a request came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u8,
    pub len: u32,
    pub data: Vec<u8>,
}

pub struct Guest<E: Engine = SyncEngine<FakeImage>, D: GuestAddressSpace = Arc<Memory>> {
    pub memory: Arc<Memory>,
    pub transport: MmioTransport<BlockDevice>,
    pub worker: Worker<Arc<Memory>, D, E>,
    pub raised: Arc<AtomicU64>,
    pub event_idx: bool,
    pub limiter: Option<Arc<RateLimiter>>,
    size: u16,
    free: Vec<u16>,
    owned: Vec<Vec<u16>>,
    avail: u16,
    used: u16,
    heap: u64,
}

/// Where the configuration space begins.
const CONFIG: u64 = 0x100;

/// Has the available ring go up to `index`.
pub fn publish(memory: &Memory, index: u16) {
    memory.write_obj(index.to_le(), GuestAddress(AVAIL + 2)).unwrap();
}

/// A guest on a disk of `sectors`, each filled with its number.
pub fn guest(sectors: u64, config: &BlockConfig, features: u64) -> (Guest, Arc<FakeImage>) {
    guest_on(FakeImage::new(contents(sectors), config.read_only), config, features)
}

/// A guest on `image`.
pub fn guest_on(image: FakeImage, config: &BlockConfig, features: u64) -> (Guest, Arc<FakeImage>) {
    let image = Arc::new(image);
    let engine = SyncEngine::new(Arc::clone(&image));
    (Guest::new(image.capacity(), config, features, engine), image)
}

/// A guest on a disk that is this image.
pub fn driver<I: Image>(image: &Arc<I>) -> Guest<SyncEngine<I>> {
    Guest::new(
        image.capacity(),
        &BlockConfig::for_image(image),
        F_ALL,
        SyncEngine::new(Arc::clone(image)),
    )
}

pub fn contents(sectors: u64) -> Vec<u8> {
    (0..sectors).map(|sector| [sector as u8; 512]).collect::<Vec<_>>().concat()
}

impl<E: Engine> Guest<E> {
    pub fn new(capacity: u64, config: &BlockConfig, features: u64, engine: E) -> Self {
        Self::with_space(capacity, config, features, engine, |memory| memory)
    }
}

impl<E: Engine, D: GuestAddressSpace> Guest<E, D> {
    /// A guest whose requests' memory is reached through what `space` makes of it.
    pub fn with_space(
        capacity: u64,
        config: &BlockConfig,
        features: u64,
        engine: E,
        space: impl FnOnce(Arc<Memory>) -> D,
    ) -> Self {
        let raised = Arc::new(AtomicU64::new(0));
        let line = Arc::clone(&raised);
        let queue_size = config.queue_size.min(QUEUE_SIZE_MAX);
        let config = &BlockConfig { queue_size, ..config.clone() };
        let device = BlockDevice::new(capacity, config).unwrap();
        let mut transport = MmioTransport::new(device, move || {
            line.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        let features = features & transport.device_features();
        let memory =
            Arc::new(Memory::from_ranges(&[(GuestAddress(0), MEMORY_END as usize)]).unwrap());

        let size = config.queue_size;
        setup::initialise(&mut transport, size, features);
        assert_eq!(transport.features(), features);

        let queue = LiveQueue::new(
            &transport.queue(0).unwrap(),
            &memory,
            space(Arc::clone(&memory)),
            transport.interrupt(0),
        )
        .unwrap();
        let params = transport.device().params();
        Self {
            worker: Worker::new(queue, engine, &params),
            memory,
            transport,
            raised,
            event_idx: features & F_EVENT_IDX != 0,
            limiter: None,
            size,
            free: (0..size).rev().collect(),
            owned: vec![Vec::new(); usize::from(size)],
            avail: 0,
            used: 0,
            heap: HEAP,
        }
    }

    /// The same guest, its ranges carried out in pieces of so many bytes.
    pub fn with_range_piece(self, bytes: u64) -> Self {
        Self { worker: self.worker.with_range_piece(bytes), ..self }
    }

    /// Fresh memory, filled with a pattern.
    pub fn alloc(&mut self, len: usize) -> u64 {
        let addr = self.heap;
        self.heap = (addr + len as u64 + 64).next_multiple_of(64);
        assert!(self.heap < MEMORY_END, "the guest is out of memory");
        self.memory.write_slice(&vec![UNWRITTEN; len], GuestAddress(addr)).unwrap();
        addr
    }

    /// Forgets all allocations.
    pub fn free_all(&mut self) {
        self.heap = HEAP;
    }

    pub fn put(&mut self, data: &[u8]) -> u64 {
        let addr = self.alloc(data.len());
        self.memory.write_slice(data, GuestAddress(addr)).unwrap();
        addr
    }

    pub fn memory_write(&self, data: &[u8], addr: u64) {
        self.memory.write_slice(data, GuestAddress(addr)).unwrap();
    }

    pub fn get(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read_slice(&mut data, GuestAddress(addr)).unwrap();
        data
    }

    pub fn header(&mut self, kind: u32, sector: u64) -> Buf {
        let mut header = Vec::new();
        header.extend(kind.to_le_bytes());
        header.extend(0x5a5a_5a5au32.to_le_bytes());
        header.extend(sector.to_le_bytes());
        Buf { addr: self.put(&header), len: 16, write: false }
    }

    pub fn out(&mut self, data: &[u8]) -> Buf {
        Buf { addr: self.put(data), len: data.len() as u32, write: false }
    }

    pub fn room(&mut self, len: usize) -> Buf {
        Buf { addr: self.alloc(len), len: len as u32, write: true }
    }

    fn put_descriptor(&self, table: u64, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let at = GuestAddress(table + u64::from(index) * 16);
        let mut bytes = Vec::new();
        bytes.extend(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory.write_slice(&bytes, at).unwrap();
    }

    fn make_available(&mut self, head: u16) {
        let slot = AVAIL + 4 + u64::from(self.avail % self.size) * 2;
        self.memory.write_obj(head.to_le(), GuestAddress(slot)).unwrap();
        self.avail = self.avail.wrapping_add(1);
        self.memory.write_obj(self.avail.to_le(), GuestAddress(AVAIL + 2)).unwrap();
    }

    /// Makes a chain of these buffers available; the head of it.
    pub fn add(&mut self, bufs: &[Buf]) -> u16 {
        let indices: Vec<u16> = bufs.iter().map(|_| self.free.pop().unwrap()).collect();
        for (nth, (buf, index)) in bufs.iter().zip(&indices).enumerate() {
            let next = indices.get(nth + 1).copied();
            let flags = if buf.write { WRITE } else { 0 } | if next.is_some() { NEXT } else { 0 };
            self.put_descriptor(DESC, *index, buf.addr, buf.len, flags, next.unwrap_or(0));
        }
        let head = indices[0];
        self.owned[usize::from(head)] = indices;
        self.make_available(head);
        head
    }

    /// As [`Self::add`], through an indirect table.
    pub fn add_indirect(&mut self, bufs: &[Buf]) -> u16 {
        assert!(bufs.len() <= 32, "a table has room for no more");
        let head = self.free.pop().unwrap();
        let table = TABLES + u64::from(head) * 0x200;
        for (nth, buf) in bufs.iter().enumerate() {
            let more = nth + 1 < bufs.len();
            let flags = if buf.write { WRITE } else { 0 } | if more { NEXT } else { 0 };
            self.put_descriptor(table, nth as u16, buf.addr, buf.len, flags, nth as u16 + 1);
        }
        self.put_descriptor(DESC, head, table, bufs.len() as u32 * 16, INDIRECT, 0);
        self.owned[usize::from(head)] = vec![head];
        self.make_available(head);
        head
    }

    /// Has the driver's next requests lie in the ring without being available: the memory and index
    /// with which a [`publish`] makes them so.
    pub fn unpublish(&mut self, requests: u16) -> (Arc<Memory>, u16) {
        publish(&self.memory, self.avail.wrapping_sub(requests));
        (Arc::clone(&self.memory), self.avail)
    }

    /// The driver's write to `writeback`.
    pub fn set_writeback(&mut self, value: u8) {
        let outcome = self.transport.write(CONFIG + 32, &[value], &mut NoQueues);
        assert_eq!(outcome, WriteOutcome::Done);
    }

    /// `N` bytes of the configuration space.
    pub fn config<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.transport.read(CONFIG + offset, &mut data);
        data
    }

    /// The 32-bit register `register`.
    pub fn register(&mut self, register: Register) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register.offset(), &mut data);
        u32::from_le_bytes(data)
    }

    /// A chain whose last descriptor leads back to its first.
    pub fn add_loop(&mut self) {
        let addr = self.alloc(16);
        let (first, second) = (self.free.pop().unwrap(), self.free.pop().unwrap());
        self.put_descriptor(DESC, first, addr, 16, NEXT, second);
        self.put_descriptor(DESC, second, addr, 16, NEXT, first);
        self.make_available(first);
    }

    /// Fills table and available ring with anything.
    pub fn scribble(&mut self, table: &[(u64, u32, u16, u16)], avail: &[u16], index: u16) {
        for (nth, &(addr, len, flags, next)) in table.iter().enumerate() {
            self.put_descriptor(DESC, nth as u16, addr, len, flags, next);
        }
        for &head in avail {
            self.make_available(head);
        }
        self.memory.write_obj(index.to_le(), GuestAddress(AVAIL + 2)).unwrap();
    }

    /// Runs the worker until it has nothing more to take.
    pub fn kick(&mut self) -> Progress {
        let mut processed = 0;
        loop {
            let progress = self.worker.run();
            processed += progress.processed;
            if !progress.more {
                return Progress { processed, ..progress };
            }
        }
    }

    /// Runs the worker until nothing is in flight.
    pub fn finish(&mut self) {
        self.kick();
        while self.worker.queue().in_flight() > 0 {
            self.worker.run();
        }
    }

    /// Used entries not seen before: head and length.
    pub fn used(&mut self) -> Vec<(u16, u32)> {
        let index = u16::from_le(self.memory.read_obj(GuestAddress(USED + 2)).unwrap());
        let mut entries = Vec::new();
        while self.used != index {
            let slot = GuestAddress(USED + 4 + u64::from(self.used % self.size) * 8);
            let [id, len]: [u32; 2] = self.memory.read_obj(slot).unwrap();
            let head = u32::from_le(id) as u16;
            let indices = std::mem::take(&mut self.owned[usize::from(head)]);
            assert!(
                !indices.is_empty(),
                "head {head} came back without having been made available"
            );
            self.free.extend(indices.into_iter().rev());
            entries.push((head, u32::from_le(len)));
            self.used = self.used.wrapping_add(1);
        }
        // used_event: interrupt at the next one.
        let event = GuestAddress(AVAIL + 4 + u64::from(self.size) * 2);
        self.memory.write_obj(self.used.to_le(), event).unwrap();
        entries
    }

    /// Acknowledges the interrupt, as a handler does; its bits.
    pub fn acknowledge(&mut self) -> u32 {
        let mut status = [0; 4];
        self.transport.read(Register::InterruptStatus.offset(), &mut status);
        let offset = Register::InterruptAck.offset();
        let outcome = self.transport.write(offset, &status, &mut NoQueues);
        assert_eq!(outcome, WriteOutcome::Done);
        u32::from_le_bytes(status)
    }

    pub fn needs_reset(&self) -> bool {
        self.transport.status().bits() & 64 != 0
    }

    /// One request in the usual framing, served: header, `out`, room for `data_in` bytes, status.
    pub fn request(&mut self, kind: u32, sector: u64, out: &[u8], data_in: usize) -> Answer {
        self.free_all();
        let mut bufs = vec![self.header(kind, sector)];
        if !out.is_empty() {
            bufs.push(self.out(out));
        }
        let data = self.room(data_in);
        if data_in > 0 {
            bufs.push(data);
        }
        let status = self.room(1);
        bufs.push(status);
        self.serve(&bufs, data.addr, data_in, status.addr)
    }

    /// Serves one chain and looks at the data and status it left.
    pub fn serve(&mut self, bufs: &[Buf], data: u64, data_in: usize, status: u64) -> Answer {
        let head = self.add(bufs);
        self.finish();
        let used = self.used();
        assert_eq!(used.len(), 1, "one request, one used entry");
        assert_eq!(used[0].0, head);
        Answer { status: self.get(status, 1)[0], len: used[0].1, data: self.get(data, data_in) }
    }
}
