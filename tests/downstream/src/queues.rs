//! The queues of a device: a thread for each.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::warn;
use virtio_dev::{
    Chain, Interrupt, LiveQueue, QueueConfig, Queues, Stop, vm_memory::GuestAddressSpace,
};
use virtio_worker::{QueueThread, Served, ThreadSpec, Waiter, Wake};
use xen_virtio_backend::{DeviceMemory, Host, ThreadFilters, ThreadKind};

use crate::{digest::Digest, fnv::Fnv};

/// How many queues a device has.
pub(crate) const QUEUES: usize = 2;
/// The most that is hashed for one request.
const MAX_LEN: u64 = 1 << 20;

/// Dropping them ends their threads.
pub(crate) struct DigestQueues<H: Host> {
    memory: DeviceMemory<H>,
    queues: [Queue; QUEUES],
    /// What confines their threads.
    filters: ThreadFilters,
    /// Requests that were answered.
    answered: Arc<AtomicU64>,
}

/// One of them: with a thread if it is served, else with what its thread is to sleep on.
struct Queue {
    thread: Option<QueueThread<(), ()>>,
    wake: Option<Wake>,
}

impl Queue {
    fn new() -> io::Result<Self> {
        Ok(Self { thread: None, wake: Some(Wake::new()?) })
    }
}

impl<H: Host> DigestQueues<H> {
    /// Queues that nobody uses yet.
    pub(crate) fn new(memory: DeviceMemory<H>, filters: ThreadFilters) -> io::Result<Self> {
        let queues = [Queue::new()?, Queue::new()?];
        Ok(Self { memory, queues, filters, answered: Arc::default() })
    }

    /// How many requests they have answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl<H: Host> Queues<Digest> for DigestQueues<H> {
    fn start(&mut self, device: &Digest, config: &QueueConfig, interrupt: Interrupt) {
        let rings = self.memory.rings();
        let queue = LiveQueue::new(config, &rings, self.memory.requests(), interrupt.clone());
        // The driver was asked for a reset.
        let Ok(mut queue) = queue else { return };
        let slot = &mut self.queues[usize::from(config.index)];
        let wake = slot.wake.take().expect("of a queue that is not served");
        let (seed, answered) = (device.seed(), Arc::clone(&self.answered));
        let filters = self.filters.clone();
        let serve = move |_: &mut (), waiter: &mut Waiter| {
            match filters.apply(ThreadKind::SyncQueue) {
                Ok(()) => serve(&mut queue, seed, &answered, waiter),
                Err(error) => warn!("the thread of a queue can't be confined: {error}"),
            }
            Served::idle(())
        };
        let spec = ThreadSpec::new(format!("vq-digest-{}", config.index), wake);
        match QueueThread::start(spec, (), serve, |event| warn!("{event}")) {
            Ok(thread) => {
                // It may have been notified before.
                thread.wake();
                slot.thread = Some(thread);
            }
            Err(error) => {
                warn!("a queue can't be served: {}", error.reason);
                interrupt.needs_reset();
                slot.wake = Some(error.wake);
            }
        }
    }

    fn notify(&mut self, queue: u16) {
        let slot = self.queues.get(usize::from(queue));
        if let Some(thread) = slot.and_then(|queue| queue.thread.as_ref()) {
            thread.wake();
        }
    }

    fn stop(&mut self, queue: u16) -> Stop {
        let slot = &mut self.queues[usize::from(queue)];
        if let Some(thread) = slot.thread.take() {
            slot.wake = Some(thread.stop().wake);
        }
        Stop::Done
    }
}

/// Answers requests until the thread is told to stop.
fn serve<R: GuestAddressSpace, D: GuestAddressSpace>(
    queue: &mut LiveQueue<R, D>,
    seed: u64,
    answered: &AtomicU64,
    waiter: &mut Waiter,
) {
    while !waiter.is_stopped() {
        while let Some(request) = queue.pop() {
            let written = answer(&request, seed);
            queue.complete(request, written);
            answered.fetch_add(1, Ordering::Relaxed);
        }
        queue.publish();
        if !queue.enable_notification() && waiter.wait(None, None).is_err() {
            queue.give_up();
            return;
        }
    }
}

/// Hashes what the driver has sent. 0 bytes are written of a request that has no room for it, is too long, or isn't in
/// the guest's memory.
fn answer<D: GuestAddressSpace>(request: &Chain<D>, seed: u64) -> u32 {
    if request.readable_len() > MAX_LEN || request.writable_len() < 8 {
        return 0;
    }
    let mut hash = Fnv::new(seed);
    let (mut chunk, mut offset) = ([0; 4096], 0);
    while offset < request.readable_len() {
        match request.copy_from(offset, &mut chunk) {
            Ok(len) if len > 0 => {
                hash.add(&chunk[..len]);
                offset += len as u64;
            }
            _ => return 0,
        }
    }
    request.copy_to(0, &hash.value().to_le_bytes()).map_or(0, |len| len as u32)
}
