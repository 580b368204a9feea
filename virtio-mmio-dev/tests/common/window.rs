//! A driver's view of a window.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio_mmio_dev::{MmioTransport, MmioTransportBuilder, Register};

use super::{Effect, RING, Recorder, RingAt, TestDevice};

/// The driver's view of a window.
pub struct Window {
    pub transport: MmioTransport<TestDevice>,
    pub queues: Recorder,
    /// Rising edges of the line.
    pub edges: Arc<AtomicU64>,
}

impl Window {
    pub fn new(device: TestDevice) -> Self {
        Self::on_host(device, |builder| builder)
    }

    /// The window of a device whose host is told what it adds.
    pub fn on_host(
        device: TestDevice,
        host: impl FnOnce(MmioTransportBuilder<TestDevice>) -> MmioTransportBuilder<TestDevice>,
    ) -> Self {
        let edges = Arc::new(AtomicU64::new(0));
        let line = Arc::clone(&edges);
        let builder = MmioTransport::builder(device, move || {
            line.fetch_add(1, Ordering::Relaxed);
        });
        let transport = host(builder).build().unwrap();
        Self { transport, queues: Recorder::default(), edges }
    }

    pub fn edges(&self) -> u64 {
        self.edges.load(Ordering::Relaxed)
    }

    pub fn read(&mut self, register: Register) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(register.offset(), &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&mut self, register: Register, value: u32) -> Effect {
        self.write_bytes(register.offset(), &value.to_le_bytes())
    }

    pub fn write_bytes(&mut self, offset: u64, data: &[u8]) -> Effect {
        self.queues.calls.clear();
        let outcome = self.transport.write(offset, data, &mut self.queues);
        Effect::of(offset, data, outcome, &self.queues.calls)
    }

    /// Whatever drains has stopped.
    pub fn stopped(&mut self) {
        (0..3).for_each(|queue| self.transport.queue_stopped(queue));
    }

    /// A write that asks nothing of the caller, whether it is taken or ignored.
    pub fn set(&mut self, register: Register, value: u32) {
        let effect = self.write(register, value);
        assert!(matches!(effect, Effect::None | Effect::Ignored(_)), "{register:?}: {effect:?}");
    }

    pub fn status(&mut self) -> u32 {
        self.read(Register::Status)
    }

    pub fn offer(&mut self, features: u64) {
        self.set(Register::DriverFeaturesSel, 0);
        self.set(Register::DriverFeatures, features as u32);
        self.set(Register::DriverFeaturesSel, 1);
        self.set(Register::DriverFeatures, (features >> 32) as u32);
    }

    /// Up to and including FEATURES_OK.
    pub fn negotiate(&mut self, features: u64) {
        self.set(Register::Status, 1);
        self.set(Register::Status, 3);
        self.offer(features);
        self.set(Register::Status, 11);
    }

    pub fn set_up_queue(&mut self, index: u32, size: u16, at: &RingAt) {
        self.set(Register::QueueSel, index);
        self.set(Register::QueueSize, size.into());
        for (low, high, addr) in [
            (Register::QueueDescLow, Register::QueueDescHigh, at.desc),
            (Register::QueueDriverLow, Register::QueueDriverHigh, at.avail),
            (Register::QueueDeviceLow, Register::QueueDeviceHigh, at.used),
        ] {
            self.set(low, addr as u32);
            self.set(high, (addr >> 32) as u32);
        }
    }

    /// All the way to a live queue 0 of 16 descriptors.
    pub fn live(features: u64) -> Self {
        let mut window = Self::new(TestDevice::default());
        window.negotiate(features);
        window.set_up_queue(0, 16, &RING);
        window.set(Register::QueueReady, 1);
        assert_eq!(window.write(Register::Status, 15), Effect::Activate);
        window
    }

    pub fn reset(&mut self) {
        assert_eq!(self.write(Register::Status, 0), Effect::Reset);
        self.stopped();
    }
}
