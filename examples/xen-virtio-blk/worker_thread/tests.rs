use std::{
    sync::mpsc,
    thread::{self, ThreadId},
    time::Instant,
};

use virtio_blk_dev::{BlockConfig, BlockDevice, Completion, Io, RateLimits};
use virtio_dev::{Queues, Stop};
use virtio_mmio_dev::{MmioTransport, Register};
use xen_foreignmem::{DomainMemory, Layout};
use xen_ioreq::fake::FakeDomain;
use xen_virtio_backend::node::Kind;

use super::*;

const TABLE: u64 = 0x4000_0000;
const AVAIL: u64 = 0x4000_1000;
const USED: u64 = 0x4000_2000;
const HEADER: u64 = 0x4000_3000;
const DATA: u64 = 0x4000_4000;
const DEVICE_NEEDS_RESET: u32 = 64;

/// An engine that says what it is given, and keeps it or panics.
struct Faulty {
    panics: bool,
    submitted: mpsc::Sender<()>,
    kept: Vec<Io>,
}

impl Engine for Faulty {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        self.submitted.send(()).unwrap();
        assert!(!self.panics, "as ordered");
        self.kept.push(io);
        None
    }

    fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        self.kept.len()
    }
}

/// How the transport has the queue served, by whom it is not.
#[derive(Default)]
struct Queue(Option<(QueueConfig, Interrupt, Params)>);

impl Queues<BlockDevice> for Queue {
    fn start(&mut self, device: &BlockDevice, config: &QueueConfig, interrupt: Interrupt) {
        self.0 = Some((*config, interrupt, device.params()));
    }

    fn notify(&mut self, _: u16) {}

    fn stop(&mut self, _: u16) -> Stop {
        Stop::Done
    }
}

/// A guest whose driver is ready, and has asked for sector 0.
fn driver() -> (FakeDomain, MmioTransport<BlockDevice>, Queue) {
    let mut queue = Queue::default();
    let guest = FakeDomain::builder().domid(1).build();
    let ram = guest.ram();
    let descriptors: [(u64, u32, u16, u16); 3] =
        [(HEADER, 16, 1, 1), (DATA, 512, 3, 2), (DATA + 512, 1, 2, 0)];
    for ((addr, len, flags, next), at) in descriptors.into_iter().zip((TABLE..).step_by(16)) {
        ram.write(at, &addr.to_le_bytes()).unwrap();
        ram.write(at + 8, &len.to_le_bytes()).unwrap();
        ram.write(at + 12, &flags.to_le_bytes()).unwrap();
        ram.write(at + 14, &next.to_le_bytes()).unwrap();
    }
    ram.write(AVAIL + 2, &1_u16.to_le_bytes()).unwrap();
    let device = BlockDevice::new(4096, &BlockConfig::default()).unwrap();
    let mut transport = MmioTransport::new(device, || {}).unwrap();
    for (register, value) in [
        (Register::Status, 3),
        (Register::DriverFeaturesSel, 1),
        (Register::DriverFeatures, 1),
        (Register::Status, 11),
        (Register::QueueSize, 4),
        (Register::QueueDescLow, TABLE as u32),
        (Register::QueueDriverLow, AVAIL as u32),
        (Register::QueueDeviceLow, USED as u32),
        (Register::QueueReady, 1),
        (Register::Status, 15),
    ] {
        let _ = transport.write(register.offset(), &value.to_le_bytes(), &mut queue);
    }
    (guest, transport, queue)
}

fn status(transport: &mut MmioTransport<BlockDevice>) -> u32 {
    let mut data = [0; 4];
    transport.read(Register::Status.offset(), &mut data);
    u32::from_le_bytes(data)
}

/// An engine that says on which thread it carries out what.
struct Telling(mpsc::Sender<ThreadId>);

impl Engine for Telling {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        self.0.send(thread::current().id()).unwrap();
        Some(Completion { io, result: Ok(()) })
    }

    fn try_alone(&mut self, io: Io) -> Result<Completion, Io> {
        self.submit(io).ok_or_else(|| unreachable!())
    }

    fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }
}

fn start(
    guest: &FakeDomain,
    queue: Queue,
    panics: bool,
) -> (Result<WorkerThread, (StartError, Idle)>, mpsc::Receiver<()>) {
    let (submitted, taken) = mpsc::channel();
    let engine = Faulty { panics, submitted, kept: Vec::new() };
    (start_with(guest, queue, Box::new(engine)), taken)
}

fn start_with(
    guest: &FakeDomain,
    queue: Queue,
    engine: Box<dyn Engine>,
) -> Result<WorkerThread, (StartError, Idle)> {
    let memory = DomainMemory::<_, xen_foreignmem::fake::FakeGrantTable>::new(
        Some(guest.foreign_memory()),
        None,
        Layout::default(),
    );
    let (config, interrupt, params) = queue.0.expect("DRIVER_OK");
    let serving = ServingSpec {
        id: DeviceId { kind: Kind::VirtioDisk, domid: 1, devid: 51712 },
        engine,
        wake: Wake::new().unwrap(),
        limiter: Arc::new(RateLimiter::new(&RateLimits::default())),
        poll: Duration::ZERO,
        cpu: None,
        log: LogLimit::new(),
        filters: ThreadFilters::NONE,
    };
    let spaces = (memory.rings(), memory.requests(), None);
    WorkerThread::start(&config, spaces, interrupt, &params, serving)
}

#[test]
fn an_engine_whose_io_has_not_come_back_serves_no_other_queue() {
    let (guest, _transport, queue) = driver();
    let (worker, taken) = start(&guest, queue, false);
    taken.recv().unwrap();
    let idle = worker.ok().expect("a worker").stop();
    assert!(idle.engine.is_none(), "the next queue would get the answer to this one's request");
}

#[test]
fn a_queue_whose_thread_panics_asks_for_a_reset_before_anybody_stops_it() {
    let (guest, mut transport, queue) = driver();
    let (worker, _taken) = start(&guest, queue, true);
    let worker = worker.ok().expect("a worker");
    let begin = Instant::now();
    while status(&mut transport) & DEVICE_NEEDS_RESET == 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "the driver waits for ever");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(worker.stop().engine.is_none());
}

#[test]
fn a_queue_whose_rings_can_not_be_mapped_leaves_its_engine() {
    let (guest, _transport, mut queue) = driver();
    queue.0.as_mut().expect("DRIVER_OK").0.used_ring = 0x10_0000;
    let (error, idle) = start(&guest, queue, false).0.err().expect("an error");
    assert!(matches!(error, StartError::Queue(_)), "{error}");
    assert!(idle.engine.is_some());
}

#[test]
fn a_request_that_comes_alone_is_served_on_the_thread_that_hears_of_it_until_the_queue_is_stopped()
{
    let (guest, _transport, queue) = driver();
    let (tell, served) = mpsc::channel();
    let worker = start_with(&guest, queue, Box::new(Telling(tell))).ok().expect("a worker");
    let wait = Duration::from_secs(60);
    let (here, its) = (thread::current().id(), served.recv_timeout(wait).unwrap());
    assert_ne!(its, here, "nobody was told of the first");
    // The queue's thread may not sleep yet, and serves the next ones, too.
    let begin = Instant::now();
    let mut index: u16 = 1;
    let mut add = || {
        index += 1;
        guest.ram().write(AVAIL + 2, &index.to_le_bytes()).unwrap();
    };
    loop {
        add();
        worker.notify();
        if served.recv_timeout(wait).unwrap() == here {
            break;
        }
        assert!(begin.elapsed() < wait, "never here");
    }
    worker.begin_stop();
    add();
    worker.notify();
    assert!(worker.stop().engine.is_some());
    assert!(served.try_iter().all(|thread| thread == its));
}
