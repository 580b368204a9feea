//! A driver that makes one request after the other to a disk over any image.

use std::sync::Arc;

use virtio_blk_dev::{BlockConfig, BlockDevice, Engine, Image, SyncEngine, Worker};
use virtio_dev::{LiveQueue, QueueConfig};

use crate::device::{PREDICTED, Serving, Transport};
use crate::memory::Memory;
use crate::request::go_live;

const QUEUE_SIZE: u16 = 4;
const AVAIL: u64 = 0x100;
const USED: u64 = 0x200;
const HEADER: u64 = 0x300;
const STATUS: u64 = 0x310;
/// Up to the end of the memory there is room for [`MAX_SECTORS`].
const DATA: u64 = 0x400;

/// The longest request.
pub const MAX_SECTORS: u8 = 12;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const OK: u8 = 0;

/// A disk, and the driver of its one queue.
pub struct Client {
    serving: Serving,
    memory: Arc<Memory>,
    sectors: u64,
    avail_index: u16,
}

impl Client {
    /// A disk over `image`; `None` if it can't be one.
    pub fn new(image: Arc<dyn Image>) -> Option<Self> {
        let config = BlockConfig { queue_size: QUEUE_SIZE, ..BlockConfig::for_image(&*image) };
        let sectors = image.capacity() / 512;
        let device = BlockDevice::new(image.capacity(), &config).ok()?;
        let mut transport = Transport::new(device, || {}).expect("a transport");
        go_live(&mut transport, PREDICTED);
        let memory = Memory::with(&[], 0);
        let queue = QueueConfig {
            index: 0,
            size: QUEUE_SIZE,
            size_max: QUEUE_SIZE,
            desc_table: 0,
            avail_ring: AVAIL,
            used_ring: USED,
            event_idx: false,
            indirect: false,
            next_avail: 0,
            next_used: 0,
        };
        let live = LiveQueue::new(&queue, &memory, Arc::clone(&memory), transport.interrupt(0));
        let engine: Box<dyn Engine> = Box::new(SyncEngine::new(image));
        let params = transport.device().params();
        let serving = Serving::new(Worker::new(live.expect("a live queue"), engine, &params));
        Some(Self { serving, memory, sectors, avail_index: 0 })
    }

    /// The size of the disk.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Makes a request that sends `data`, or receives `room` bytes, which are given if it succeeds.
    pub fn request(&mut self, kind: u32, sector: u64, data: &[u8], room: usize) -> Option<Vec<u8>> {
        let memory = &self.memory;
        memory.put(HEADER, &u64::from(kind).to_le_bytes());
        memory.put(HEADER + 8, &sector.to_le_bytes());
        memory.put(STATUS, &[0xff]);
        memory.put(DATA, data);
        let (len, flag) = if data.is_empty() { (room, WRITE) } else { (data.len(), 0) };
        self.descriptor(0, HEADER, 16, NEXT, 1);
        self.descriptor(1, DATA, len as u32, NEXT | flag, 2);
        self.descriptor(2, STATUS, 1, WRITE, 0);
        self.avail_index = self.avail_index.wrapping_add(1);
        self.memory.put(AVAIL + 2, &self.avail_index.to_le_bytes());
        while self.serving.run().1 {}
        let used: [u8; 2] = self.memory.get(USED + 2);
        assert_eq!(u16::from_le_bytes(used), self.avail_index, "a request isn't answered");
        let [status] = self.memory.get(STATUS);
        (status == OK).then(|| self.memory.bytes(DATA, room))
    }

    /// Requests that the image failed.
    pub fn host_errors(&self) -> u64 {
        self.serving.host_errors()
    }

    fn descriptor(&self, index: u64, addr: u64, len: u32, flags: u16, next: u16) {
        let at = 16 * index;
        self.memory.put(at, &addr.to_le_bytes());
        self.memory.put(at + 8, &len.to_le_bytes());
        self.memory.put(at + 12, &flags.to_le_bytes());
        self.memory.put(at + 14, &next.to_le_bytes());
    }
}
