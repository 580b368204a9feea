//! Setting the device and its queue up, and again.

use std::sync::Arc;

use virtio_blk_dev::{BlockDevice, Engine, Params, Worker};
use virtio_mmio_dev::{Effect, LiveQueue, MmioTransport, Register};
use vm_memory::{Bytes, GuestAddress};

use super::{AVAIL, DESC, Guest, TABLES, USED};

/// Takes a device from its reset to `DRIVER_OK`, with one queue; what the last write asked for.
pub fn initialise(transport: &mut MmioTransport<BlockDevice>, size: u16, features: u64) -> Effect {
    for (register, value) in [
        (Register::Status, 1),
        (Register::Status, 3),
        (Register::DriverFeaturesSel, 0),
        (Register::DriverFeatures, features as u32),
        (Register::DriverFeaturesSel, 1),
        (Register::DriverFeatures, (features >> 32) as u32),
        (Register::Status, 11),
    ] {
        let _ = transport.write(register.offset(), &value.to_le_bytes());
    }
    let _ = set_queue_up(transport, size);
    transport.write(Register::Status.offset(), &15u32.to_le_bytes())
}

fn set_queue_up(transport: &mut MmioTransport<BlockDevice>, size: u16) -> Effect {
    let mut effect = Effect::None;
    for (register, value) in [
        (Register::QueueSel, 0),
        (Register::QueueSize, u32::from(size)),
        (Register::QueueDescLow, DESC as u32),
        (Register::QueueDriverLow, AVAIL as u32),
        (Register::QueueDeviceLow, USED as u32),
        (Register::QueueReady, 1),
    ] {
        effect = transport.write(register.offset(), &value.to_le_bytes());
    }
    effect
}

impl<E: Engine> Guest<E> {
    /// Has another engine serve the queue from here on, as a worker of a device with `params` that has the same limits.
    pub fn replace_worker(&mut self, engine: E, params: &Params) {
        let config = self.transport.queue(0).unwrap();
        let memory = Arc::clone(&self.memory);
        let queue =
            LiveQueue::new(&config, &self.memory, memory, self.transport.interrupt()).unwrap();
        let worker = Worker::new(queue, engine, params);
        self.worker = match &self.limiter {
            Some(limiter) => worker.with_rate_limiter(Arc::clone(limiter)),
            None => worker,
        };
    }

    /// Resets the device, as a driver does that begins anew; nothing is served before a worker is
    /// replaced.
    pub fn restart(&mut self, features: u64) {
        let status = Register::Status.offset();
        assert_eq!(self.transport.write(status, &[0; 4]), Effect::Reset);
        self.worker.drain().unwrap();
        self.transport.reset_done();
        self.forget_rings();
        assert_eq!(initialise(&mut self.transport, self.size, features), Effect::Activate);
    }

    /// Resets the queue and sets it up again; nothing is served before a worker is replaced.
    pub fn restart_queue(&mut self) {
        let mut write = |register: Register, value: u32| {
            self.transport.write(register.offset(), &value.to_le_bytes())
        };
        assert_eq!(write(Register::QueueSel, 0), Effect::None);
        assert_eq!(write(Register::QueueReset, 1), Effect::QueueStop(0));
        assert_eq!(self.register(Register::QueueReset), 1, "not done yet");
        self.worker.drain().unwrap();
        self.transport.queue_stopped(0);
        assert_eq!(self.register(Register::QueueReset), 0);
        assert_eq!(self.register(Register::QueueReady), 0);
        self.forget_rings();
        assert_eq!(set_queue_up(&mut self.transport, self.size), Effect::QueueReady(0));
    }

    fn forget_rings(&mut self) {
        let rings = vec![0; (TABLES - DESC) as usize];
        self.memory.write_slice(&rings, GuestAddress(DESC)).unwrap();
        (self.avail, self.used) = (0, 0);
        self.free = (0..self.size).rev().collect();
        self.owned = vec![Vec::new(); usize::from(self.size)];
    }
}
