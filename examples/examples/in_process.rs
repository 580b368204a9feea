//! The whole path of one request in one thread, without Xen: a guest's driver reads a sector of a disk.
//!
//! `cargo run --example in_process` prints each step. On a real host only the lines marked HOST differ:
//! `Privcmd::open(domid)`, `XenDeviceModel::new(…)` and `Evtchn::open()` stand where the fake guest is
//! asked for its handles, and the guest is a Linux that knows nothing of all this.

use std::{cell::RefCell, error::Error, io::Write, sync::Arc};

use virtio_blk_dev::{BlockConfig, BlockDevice, Image, RawImage, SyncEngine, Worker};
use virtio_dev::{Interrupt, LiveQueue, QueueConfig, Queues, Stop, WriteOutcome};
use virtio_mmio_dev::{MmioTransport, Register, WINDOW_SIZE};
use xen_foreignmem::{
    DomainMemory, Layout,
    fake::{FakeForeignMemory, FakeGrantTable, FakeRam},
};
use xen_ioreq::{
    DeviceModel, IoreqServer, RequestKind,
    fake::{FakeDomain, FakeVcpu},
};

/// Where the device's registers are, and its interrupt, as Xen's toolstack lays them out for a guest's
/// first virtio device (xen/include/public/arch-arm.h).
const BASE: u64 = 0x0200_0000;
const IRQ: u32 = 33;

type Memory = DomainMemory<FakeForeignMemory, FakeGrantTable>;

/// The backend: one disk of one guest.
struct Backend {
    transport: MmioTransport<BlockDevice>,
    queue: DiskQueue,
}

/// The disk's one queue, and what serves it. A daemon would give it to a thread of its own.
struct DiskQueue {
    memory: Memory,
    image: Arc<dyn Image>,
    worker: Option<QueueWorker>,
}

type QueueWorker = Worker<
    xen_foreignmem::Rings<FakeForeignMemory, FakeGrantTable>,
    xen_foreignmem::Requests<FakeForeignMemory, FakeGrantTable>,
    SyncEngine<dyn Image>,
>;

impl Backend {
    /// The guest has written a register.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Box<dyn Error>> {
        match self.transport.write(offset, data, &mut self.queue) {
            // A daemon would answer the guest first.
            WriteOutcome::Notify(queue) => self.queue.notify(queue),
            WriteOutcome::Ignored(why) => {
                return Err(format!("a write was not taken: {why}").into());
            }
            // The queue stops at once, so that no write waits for it.
            WriteOutcome::Done | WriteOutcome::Pending(_) => {}
        }
        Ok(())
    }
}

impl Queues<BlockDevice> for DiskQueue {
    fn start(&mut self, device: &BlockDevice, config: &QueueConfig, interrupt: Interrupt) {
        let (rings, requests) = (self.memory.rings(), self.memory.requests());
        // Failing, it has asked the driver for a reset: the rings are not in the guest's memory.
        if let Ok(queue) = LiveQueue::new(config, &rings, requests, interrupt) {
            let engine = SyncEngine::new(Arc::clone(&self.image));
            self.worker = Some(Worker::new(queue, engine, &device.params()));
            self.notify(config.index);
        }
    }

    fn notify(&mut self, _queue: u16) {
        if let Some(worker) = &mut self.worker {
            while worker.run().more {}
        }
    }

    fn stop(&mut self, _queue: u16) -> Stop {
        // Its rings are unmapped before the guest goes on.
        self.worker = None;
        Stop::Done
    }
}

/// A guest's driver: it knows nothing but the specification (virtio 1.2 §2.7, §4.2, §5.2).
fn read_sector(
    sector: u64,
    ram: &FakeRam,
    mut read: impl FnMut(Register) -> u32,
    mut write: impl FnMut(Register, u32),
) -> Result<[u8; 512], Box<dyn Error>> {
    // The rings and the request's three buffers, each on a page of the guest's RAM.
    const TABLE: u64 = 0x4000_0000;
    const AVAIL: u64 = 0x4000_1000;
    const USED: u64 = 0x4000_2000;
    const HEADER: u64 = 0x4000_3000;
    const DATA: u64 = 0x4000_4000;
    const STATUS: u64 = 0x4000_5000;
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    assert_eq!(read(Register::DeviceId), 2, "a block device");

    // Find the device, negotiate (VERSION_1 alone), give it a queue of 4 descriptors.
    for status in [0, 1, 3] {
        write(Register::Status, status);
    }
    write(Register::DriverFeaturesSel, 1);
    write(Register::DriverFeatures, 1);
    write(Register::Status, 11);
    assert_eq!(read(Register::Status), 11, "the features suit the device");
    write(Register::QueueSize, 4);
    write(Register::QueueDescLow, TABLE as u32);
    write(Register::QueueDriverLow, AVAIL as u32);
    write(Register::QueueDeviceLow, USED as u32);
    write(Register::QueueReady, 1);
    write(Register::Status, 15);

    // A chain of three: what to do (type 0, reserved, the sector), room for the data, room for the status.
    ram.write(HEADER + 8, &sector.to_le_bytes())?;
    let descriptors: [(u64, u32, u16, u16); 3] =
        [(HEADER, 16, NEXT, 1), (DATA, 512, NEXT | WRITE, 2), (STATUS, 1, WRITE, 0)];
    for ((addr, len, flags, next), at) in descriptors.into_iter().zip((TABLE..).step_by(16)) {
        ram.write(at, &addr.to_le_bytes())?;
        ram.write(at + 8, &len.to_le_bytes())?;
        ram.write(at + 12, &flags.to_le_bytes())?;
        ram.write(at + 14, &next.to_le_bytes())?;
    }
    // The ring's first entry is the chain that starts at descriptor 0. There is one: then kick.
    ram.write(AVAIL + 4, &0_u16.to_le_bytes())?;
    ram.write(AVAIL + 2, &1_u16.to_le_bytes())?;
    write(Register::QueueNotify, 0);

    // The interrupt handler: what was it, and what is done?
    let pending = read(Register::InterruptStatus);
    write(Register::InterruptAck, pending);
    let (mut index, mut used, mut status, mut data) = ([0; 2], [0; 8], [0xff], [0; 512]);
    ram.read(USED + 2, &mut index)?;
    ram.read(USED + 4, &mut used)?;
    ram.read(STATUS, &mut status)?;
    ram.read(DATA, &mut data)?;
    assert_eq!((pending, index, status), (1, [1, 0], [0]), "one used entry, and it went well");
    assert_eq!(used[4..], 513_u32.to_le_bytes(), "the sector and the status were written");
    write(Register::Status, 0);
    Ok(data)
}

/// The path of a request, from the image's file to the guest's memory.
pub fn main() -> Result<(), Box<dyn Error>> {
    let mut file = tempfile::NamedTempFile::new()?;
    for sector in 0_u8..8 {
        file.write_all(&[sector; 512])?;
    }

    let guest = FakeDomain::builder().domid(1).build();
    let (model, memory) = (guest.device_model(), guest.foreign_memory()); // HOST
    let events = guest.event_channel()?; // HOST

    // What the device is, and where its interrupt goes.
    let image = RawImage::open(file.path(), true)?;
    let config = BlockConfig { read_only: true, ..BlockConfig::default() };
    let device = BlockDevice::new(image.capacity(), &config)?;
    let line = Arc::clone(&model);
    let backend = RefCell::new(Backend {
        transport: MmioTransport::new(device, move || {
            println!("  raising interrupt {IRQ}");
            let _ = line.set_irq_level(IRQ, true);
        })?,
        queue: DiskQueue {
            memory: DomainMemory::new(Some(Arc::clone(&memory)), None, Layout::default()),
            image: Arc::new(image),
            worker: None,
        },
    });

    // Xen sends us what the guest does in this window.
    let mut server = IoreqServer::create(model, memory, events)?;
    server.map_range(BASE..=BASE + (WINDOW_SIZE - 1))?;
    server.enable()?;
    let server = RefCell::new(server);

    // Answers what has come: the body of a daemon's loop around `poll`.
    let serve = || {
        let (server, backend) = (&mut *server.borrow_mut(), &mut *backend.borrow_mut());
        while let Some(request) = server.next_request().expect("the guest is there") {
            match request.kind() {
                RequestKind::Read { addr, size } => {
                    let mut data = [0; 8];
                    backend.transport.read(addr - BASE, &mut data[..usize::from(size)]);
                    request.complete_read(u64::from_le_bytes(data));
                }
                RequestKind::Write { addr, size, data } => {
                    let data = &data.to_le_bytes()[..usize::from(size)];
                    backend.write(addr - BASE, data).expect("a driver that does it right");
                    request.complete();
                }
                _ => request.complete(),
            }
        }
    };

    let vcpu: FakeVcpu = guest.vcpu(0);
    let address = |register: Register| BASE + register.offset();
    let data = read_sector(
        5,
        guest.ram(),
        |register| {
            let value = vcpu.read_with(address(register), 4, serve).expect("an answer") as u32;
            println!("{register:?} reads {value:#x}");
            value
        },
        |register, value| {
            println!("{register:?} is written {value:#x}");
            vcpu.write_with(address(register), 4, value.into(), serve).expect("an answer");
        },
    )?;
    assert_eq!(data, [5; 512]);
    assert_eq!(guest.irq_count(IRQ), 1);
    println!("the guest has read sector 5");
    Ok(())
}
