//! The disk under test. All that the targets know of `virtio-blk-dev` is in this file.

use std::sync::{Arc, LazyLock};

use virtio_blk_dev::fake::{FakeEngine, FakeImage, Fault};
use virtio_blk_dev::{
    BlockConfig, BlockDevice, Commands, Engine, Image, Lifetime, Serial, Stats, SyncEngine, Worker,
};
use virtio_dev::{ControlPlane, LiveQueue, Positions, QueueConfig};
use virtio_mmio_dev::{MmioTransport, MmioTransportBuilder};
use virtio_pci_dev::{MsiLines, PciTransport, PciTransportBuilder};

use crate::memory::Memory;

/// Bytes of the disk.
pub const DISK: usize = 8 * 512;
/// What `VIRTIO_BLK_T_GET_ID` answers, without its padding.
pub const SERIAL: &str = "fuzzed";
/// Features whose requests [`crate::request`] can predict.
pub const PREDICTED: u64 = FLUSH | INDIRECT | EVENT_IDX | VERSION_1;
/// `VIRTIO_BLK_F_FLUSH`
pub const FLUSH: u64 = 1 << 9;
/// `VIRTIO_F_INDIRECT_DESC`
pub const INDIRECT: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`
pub const EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`
pub const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_ACCESS_PLATFORM`
pub const ACCESS_PLATFORM: u64 = 1 << 33;

/// A device's registers.
pub type Transport = MmioTransport<BlockDevice>;

/// What a disk is to be.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Refuses writes.
    pub read_only: bool,
    /// Addresses go through the platform.
    pub access_platform: bool,
    /// The largest size of its queue.
    pub queue_size: u16,
    /// The seed of an engine that finishes in any order; `None` is the synchronous one.
    pub reorder: Option<u8>,
}

/// A disk's contents.
#[derive(Clone, Debug)]
pub struct Disk {
    image: Arc<FakeImage>,
    setup: Setup,
}

impl Disk {
    /// A disk of [`contents`](Self::contents).
    pub fn new(setup: Setup) -> Self {
        let commands = Commands {
            discard: Some(512),
            write_zeroes: true,
            write_zeroes_may_unmap: true,
            secure_erase: Some(512),
            lifetime: false,
        };
        let image = FakeImage::new(Self::contents().to_vec(), setup.read_only)
            .with_commands(commands)
            .with_lifetime(Lifetime::default());
        Self { image: Arc::new(image), setup }
    }

    /// What is on it at first: no two bytes next to each other are alike, nor two sectors.
    pub fn contents() -> &'static [u8] {
        static CONTENTS: LazyLock<Vec<u8>> =
            LazyLock::new(|| (0..DISK).map(|at| (at ^ (at >> 9).wrapping_mul(37)) as u8).collect());
        &CONTENTS
    }

    /// Looks at what is on it now.
    pub fn with_bytes<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        self.image.with_bytes(look)
    }

    /// The disk's registers, which raise `line`, about to be made.
    pub fn transport(
        &self,
        line: impl Fn() + Send + Sync + 'static,
    ) -> MmioTransportBuilder<BlockDevice> {
        Transport::builder(self.device(), line).access_platform(self.setup.access_platform)
    }

    /// The disk's function on a PCI bus, whose messages raise `lines`, about to be made.
    pub fn function(&self, lines: impl MsiLines + 'static) -> PciTransportBuilder<BlockDevice> {
        let builder = PciTransport::builder(self.device(), lines);
        builder.access_platform(self.setup.access_platform)
    }

    /// The control plane of the disk.
    pub fn device(&self) -> BlockDevice {
        let config = BlockConfig {
            read_only: self.setup.read_only,
            queue_size: self.setup.queue_size,
            serial: Serial::new(SERIAL).expect("a short serial"),
            ..BlockConfig::for_image(&self.image)
        };
        BlockDevice::new(self.image.capacity(), &config).expect("a plain device")
    }

    /// Has the next call of the image fail, or transfer at most 255 bytes.
    pub fn inject(&self, fault: u8) {
        self.image.inject(match fault {
            0 => Fault::Errno(5),
            1 => Fault::Errno(28),
            limit => Fault::Short(usize::from(limit - 2)),
        });
    }

    /// Serves the queue; `None` if it can't be.
    pub fn serve(
        &self,
        control: &ControlPlane<BlockDevice>,
        config: &QueueConfig,
        memory: &Arc<Memory>,
    ) -> Option<Serving> {
        let interrupt = control.interrupt(0);
        let queue = LiveQueue::new(config, memory, Arc::clone(memory), interrupt).ok()?;
        let image = Arc::clone(&self.image) as Arc<dyn Image>;
        let engine: Box<dyn Engine> = match self.setup.reorder {
            Some(seed) => Box::new(FakeEngine::new(image, seed.into()).expect("an engine")),
            None => Box::new(SyncEngine::new(image)),
        };
        let params = control.device().params();
        Some(Serving::new(Worker::new(queue, engine, &params)))
    }
}

/// A queue being served.
pub struct Serving(Worker<Arc<Memory>, Arc<Memory>, Box<dyn Engine>>);

impl Serving {
    /// What `worker` serves.
    pub fn new(worker: Worker<Arc<Memory>, Arc<Memory>, Box<dyn Engine>>) -> Self {
        Self(worker)
    }

    /// Requests that the image failed.
    pub fn host_errors(&self) -> u64 {
        self.0.stats().host_errors
    }

    /// One turn of the worker: how many requests it answered, and whether there may be more.
    pub fn run(&mut self) -> (u64, bool) {
        let progress = self.0.run();
        (progress.processed, progress.more)
    }

    /// Waits for what is in flight.
    pub fn drain(&mut self) {
        self.0.drain().expect("nothing stays in flight");
    }

    /// Popped and not answered.
    pub fn in_flight(&self) -> u16 {
        self.0.queue().in_flight()
    }

    /// The driver broke the ring.
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }

    /// Where the queue stands.
    pub fn positions(&self) -> Positions {
        self.0.queue().state()
    }

    /// How many requests were answered with `VIRTIO_BLK_S_OK`, and how many with an error.
    pub fn answers(&self) -> (u64, u64) {
        let stats: Stats = self.0.stats();
        (stats.requests() - stats.errors(), stats.errors())
    }
}
