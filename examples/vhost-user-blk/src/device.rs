//! The device that every frontend is shown: the same block device as behind virtio-mmio.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use virtio_blk_dev::{BlockConfig, BlockDevice, Image, Params, RawImage, RawOptions, Serial};
use virtio_mmio_dev::VirtioDevice;

use crate::{
    args::{Args, EngineKind},
    cpus::CpuList,
};

/// Descriptors in a queue of QEMU's and of cloud-hypervisor's, unless told otherwise.
const USUAL_QUEUE: u16 = 128;

/// An image and how it is served.
pub struct Device {
    pub(crate) image: Arc<RawImage>,
    pub(crate) engine: EngineKind,
    pub(crate) poll: Duration,
    pub(crate) cpus: Option<CpuList>,
    block: Mutex<BlockDevice>,
    queues: u16,
    queue_size: u16,
}

impl Device {
    /// Opens and locks the image.
    pub fn open(args: &Args) -> anyhow::Result<Self> {
        let options = RawOptions::new().read_only(args.read_only).direct(args.direct);
        let image = options.open(&args.image)?;
        let config = BlockConfig {
            serial: Serial::new(&args.serial)?,
            num_queues: args.queues,
            queue_size: args.queue_size,
            // The frontend chooses the queue's size after the driver has read this, and no chain
            // may be longer than the queue (virtio 1.2 §2.7.5.3.1): Linux builds them by `seg_max`.
            seg_max: Some(u32::from(args.queue_size.min(USUAL_QUEUE)) - 2),
            ..BlockConfig::for_image(&image)
        };
        let block = BlockDevice::new(image.capacity(), &config)
            .with_context(|| format!("serving {}", args.image.display()))?;
        Ok(Self {
            image: Arc::new(image),
            engine: args.engine,
            poll: Duration::from_micros(args.poll_us.into()),
            cpus: args.cpus.clone(),
            block: Mutex::new(block),
            queues: args.queues,
            queue_size: args.queue_size,
        })
    }

    pub(crate) fn queues(&self) -> u16 {
        self.queues
    }

    pub(crate) fn queue_size(&self) -> u16 {
        self.queue_size
    }

    /// The virtio features offered.
    pub(crate) fn features(&self) -> u64 {
        self.block().features()
    }

    /// What requests are checked against.
    pub(crate) fn params(&self) -> Params {
        self.block().params()
    }

    /// The driver's features are final.
    pub(crate) fn accept_features(&self, features: u64) {
        self.block().accept_features(features);
    }

    /// The driver is gone: what it had chosen is, too.
    pub(crate) fn reset(&self) {
        self.block().reset();
    }

    /// The driver wrote to the configuration space.
    pub(crate) fn write_config(&self, offset: usize, data: &[u8]) {
        self.block().write_config(offset, data);
    }

    fn block(&self) -> MutexGuard<'_, BlockDevice> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `len` bytes of the configuration space; what lies behind its fields reads as zeroes.
    pub(crate) fn config(&self, offset: usize, len: usize) -> Vec<u8> {
        self.block()
            .config()
            .iter()
            .copied()
            .chain(std::iter::repeat(0))
            .skip(offset)
            .take(len)
            .collect()
    }
}
