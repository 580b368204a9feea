//! A device whose data plane is written as rust-vmm's are, on `virtio_queue::Queue` and its `Reader`
//! and `Writer`, behind this crate's registers. It answers each request with its text in capitals.
//!
//! `cargo run -p virtio-mmio-dev --features virtio-queue --example rust_vmm_device` has a driver ask once.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::ops::Deref;

use virtio_dev::vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryMmap};
use virtio_dev::{Interrupt, QueueConfig, Queues, Stop, VirtioDevice, WriteOutcome, feature};
use virtio_mmio_dev::{MmioTransport, Register};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _};

/// The longest text of a request; what comes after it is not answered.
const TEXT_MAX: u64 = 4096;

/// What the driver reads of the device.
pub(crate) struct Capitals;

impl VirtioDevice for Capitals {
    fn device_type(&self) -> u32 {
        0xffff // of no type that the specification has
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[16]
    }
    fn features(&self) -> u64 {
        feature::INDIRECT_DESC | feature::EVENT_IDX
    }
}

/// Its one queue, in `memory`.
pub(crate) struct CapitalsQueue<M: GuestAddressSpace> {
    memory: M,
    live: Option<(Queue, Interrupt)>,
}

impl<M: GuestAddressSpace> CapitalsQueue<M> {
    pub(crate) fn new(memory: M) -> Self {
        Self { memory, live: None }
    }

    /// Answers what is available, one queue's worth at most; true if there is more.
    pub(crate) fn process(&mut self) -> bool {
        let Some((queue, interrupt)) = &mut self.live else { return false };
        match process(queue, &self.memory, interrupt) {
            Ok(more) => more,
            Err(_) => {
                // The driver has broken the ring.
                interrupt.needs_reset();
                self.live = None;
                false
            }
        }
    }
}

impl<M: GuestAddressSpace> Queues<Capitals> for CapitalsQueue<M> {
    fn start(&mut self, _device: &Capitals, config: &QueueConfig, interrupt: Interrupt) {
        let queue = Queue::try_from(config).ok();
        match queue.filter(|queue| queue.is_valid(&*self.memory.memory())) {
            Some(queue) => self.live = Some((queue, interrupt)),
            None => interrupt.needs_reset(),
        }
        // The driver may have notified it before.
        self.notify(config.index);
    }

    fn notify(&mut self, _queue: u16) {
        // A device with other things to do comes back for the rest.
        while self.process() {}
    }

    fn stop(&mut self, _queue: u16) -> Stop {
        self.live = None;
        Stop::Done
    }
}

fn process<M: GuestAddressSpace>(
    queue: &mut Queue,
    memory: &M,
    interrupt: &Interrupt,
) -> Result<bool, virtio_queue::Error> {
    let mut left = queue.size();
    while left != 0 {
        queue.disable_notification(&*memory.memory())?;
        while left != 0 {
            let guard = memory.memory();
            // The iterator holds the guard, too, and is dropped with this statement.
            let Some(chain) = queue.iter(guard.clone())?.next() else { break };
            let head = chain.head_index();
            let written = answer(&*guard, chain)?;
            // The memory of a request is released before its answer is published.
            drop(guard);
            queue.add_used(&*memory.memory(), head, written)?;
            left -= 1;
        }
        if queue.needs_notification(&*memory.memory())? {
            interrupt.used_buffer();
        }
        if !queue.enable_notification(&*memory.memory())? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One request, as any device of rust-vmm's serves it; gives the number of bytes written.
fn answer<M, G>(memory: &M, chain: DescriptorChain<G>) -> Result<u32, virtio_queue::Error>
where
    M: GuestMemory,
    G: Clone + Deref<Target = M>,
{
    let mut text = Vec::new();
    let reader = chain.clone().reader(memory)?;
    let mut writer = chain.writer(memory)?;
    // A buffer that fails is the driver's mistake, and so is an answer that doesn't fit.
    let _ = reader.take(TEXT_MAX).read_to_end(&mut text);
    text.make_ascii_uppercase();
    text.truncate(writer.available_bytes());
    let _ = writer.write_all(&text);
    Ok(u32::try_from(writer.bytes_written()).unwrap_or(0))
}

/// A driver that asks once.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    let memory = &GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1_0000)])?;
    let mut transport = MmioTransport::new(Capitals, || println!("interrupt"))?;
    let mut queue = CapitalsQueue::new(memory);
    for (register, value) in [
        (Register::Status, 3),
        (Register::DriverFeaturesSel, 1),
        (Register::DriverFeatures, (feature::VERSION_1 >> 32) as u32),
        (Register::Status, 11),
        (Register::QueueSize, 8),
        (Register::QueueDescLow, 0x1000),
        (Register::QueueDriverLow, 0x2000),
        (Register::QueueDeviceLow, 0x3000),
        (Register::QueueReady, 1),
        (Register::Status, 15),
    ] {
        let outcome = transport.write(register.offset(), &u32::to_le_bytes(value), &mut queue);
        assert_eq!(outcome, WriteOutcome::Done, "{register:?}");
    }

    // Five bytes to read at 0x4000, eight to write at 0x5000.
    memory.write_slice(b"hello", GuestAddress(0x4000))?;
    for (at, addr, len, flags, next) in
        [(0x1000, 0x4000_u64, 5_u32, NEXT, 1_u16), (0x1010, 0x5000, 8, WRITE, 0)]
    {
        memory.write_obj(addr, GuestAddress(at))?;
        memory.write_obj(len, GuestAddress(at + 8))?;
        memory.write_obj(flags, GuestAddress(at + 12))?;
        memory.write_obj(next, GuestAddress(at + 14))?;
    }
    memory.write_obj(1_u16, GuestAddress(0x2002))?;
    let (notify, data) = (Register::QueueNotify.offset(), [0; 4]);
    if let WriteOutcome::Notify(index) = transport.write(notify, &data, &mut queue) {
        // Whoever traps the guest's accesses answers the write here.
        queue.notify(index);
    }

    let mut text = [0; 5];
    memory.read_slice(&mut text, GuestAddress(0x5000))?;
    let used: [u32; 2] = memory.read_obj(GuestAddress(0x3004))?;
    println!("{} in {} bytes", String::from_utf8_lossy(&text), used[1]);
    assert_eq!((&text, used), (b"HELLO", [0, 5]));
    let mut pending = [0; 4];
    transport.read(Register::InterruptStatus.offset(), &mut pending);
    assert_eq!(pending, [1, 0, 0, 0]);
    Ok(())
}
