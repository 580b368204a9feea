//! Setting the device and its queue up, and again.

use std::sync::Arc;

use virtio_blk_dev::{BlockDevice, Engine, Params, RateLimiter, RateLimits, Worker};
use virtio_dev::fake::NoQueues;
use virtio_dev::{LiveQueue, WriteOutcome};
use virtio_mmio_dev::{MmioTransport, Register};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

use super::{AVAIL, DESC, Guest, TABLES, USED};

type Transport = MmioTransport<BlockDevice>;

/// Takes a device from its reset to `DRIVER_OK`, with one queue.
pub fn initialise(transport: &mut Transport, size: u16, features: u64) {
    for (register, value) in [
        (Register::Status, 1),
        (Register::Status, 3),
        (Register::DriverFeaturesSel, 0),
        (Register::DriverFeatures, features as u32),
        (Register::DriverFeaturesSel, 1),
        (Register::DriverFeatures, (features >> 32) as u32),
        (Register::Status, 11),
    ] {
        set(transport, register, value);
    }
    set_queue_up(transport, size);
    set(transport, Register::Status, 15);
}

fn set_queue_up(transport: &mut Transport, size: u16) {
    for (register, value) in [
        (Register::QueueSel, 0),
        (Register::QueueSize, u32::from(size)),
        (Register::QueueDescLow, DESC as u32),
        (Register::QueueDriverLow, AVAIL as u32),
        (Register::QueueDeviceLow, USED as u32),
        (Register::QueueReady, 1),
    ] {
        set(transport, register, value);
    }
}

/// A write of the driver that the device must take.
fn set(transport: &mut Transport, register: Register, value: u32) {
    let outcome = transport.write(register.offset(), &value.to_le_bytes(), &mut NoQueues);
    assert_eq!(outcome, WriteOutcome::Done, "{register:?} = {value:#x}");
}

impl<E: Engine, D: GuestAddressSpace> Guest<E, D> {
    /// The same guest, its disk held to `limits`.
    pub fn with_rate_limiter(self, limits: &RateLimits) -> Self {
        self.with_shared_limiter(&Arc::new(RateLimiter::new(limits)))
    }

    /// The same guest, its queue held to the limits that this one shares with others.
    pub fn with_shared_limiter(self, limiter: &Arc<RateLimiter>) -> Self {
        let worker = self.worker.with_rate_limiter(Arc::clone(limiter));
        Self { worker, limiter: Some(Arc::clone(limiter)), ..self }
    }
}

impl<E: Engine> Guest<E> {
    /// Has another engine serve the queue from here on, as a worker of a device with `params` that has the same limits.
    pub fn replace_worker(&mut self, engine: E, params: &Params) {
        let config = self.transport.queue(0).unwrap();
        let memory = Arc::clone(&self.memory);
        let queue =
            LiveQueue::new(&config, &self.memory, memory, self.transport.interrupt(0)).unwrap();
        let worker = Worker::new(queue, engine, params);
        self.worker = match &self.limiter {
            Some(limiter) => worker.with_rate_limiter(Arc::clone(limiter)),
            None => worker,
        };
    }

    /// Resets the device, as a driver does that begins anew; nothing is served before a worker is
    /// replaced.
    pub fn restart(&mut self, features: u64) {
        self.worker.drain().unwrap();
        set(&mut self.transport, Register::Status, 0);
        self.forget_rings();
        initialise(&mut self.transport, self.size, features);
    }

    /// Resets the queue and sets it up again; nothing is served before a worker is replaced.
    pub fn restart_queue(&mut self) {
        self.worker.drain().unwrap();
        set(&mut self.transport, Register::QueueSel, 0);
        set(&mut self.transport, Register::QueueReset, 1);
        assert_eq!(self.register(Register::QueueReset), 0);
        assert_eq!(self.register(Register::QueueReady), 0);
        self.forget_rings();
        set_queue_up(&mut self.transport, self.size);
    }

    fn forget_rings(&mut self) {
        let rings = vec![0; (TABLES - DESC) as usize];
        self.memory.write_slice(&rings, GuestAddress(DESC)).unwrap();
        (self.avail, self.used) = (0, 0);
        self.free = (0..self.size).rev().collect();
        self.owned = vec![Vec::new(); usize::from(self.size)];
    }
}
