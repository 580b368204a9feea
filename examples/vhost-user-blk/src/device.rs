//! The device that every frontend is shown: the same block device as behind virtio-mmio.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use virtio_blk_dev::{BlockConfig, BlockDevice, Image, Params, RawImage, Serial};
use virtio_mmio_dev::VirtioDevice;

use crate::{
    args::{Args, EngineKind},
    cpus::CpuList,
};

/// `VIRTIO_BLK_F_MQ`: the number of queues is in `num_queues` (virtio 1.2 §5.2.3).
const MQ: u64 = 1 << 12;
/// The offset of `num_queues` in `struct virtio_blk_config` (virtio 1.2 §5.2.4).
const NUM_QUEUES: usize = 34;

/// Descriptors in a queue of QEMU's and of cloud-hypervisor's, unless told otherwise.
const USUAL_QUEUE: u16 = 128;

/// An image and how it is served.
pub struct Device {
    pub(crate) image: Arc<RawImage>,
    pub(crate) engine: EngineKind,
    pub(crate) poll: Duration,
    pub(crate) cpus: Option<CpuList>,
    block: BlockDevice,
    queues: u16,
    queue_size: u16,
}

impl Device {
    /// Opens and locks the image.
    pub fn open(args: &Args) -> anyhow::Result<Self> {
        let image = RawImage::open(&args.image, args.read_only)?;
        let config = BlockConfig {
            read_only: args.read_only,
            serial: Serial::new(&args.serial)?,
            queue_size: args.queue_size,
            // The frontend chooses the queue's size after the driver has read this, and no chain
            // may be longer than the queue (virtio 1.2 §2.7.5.3.1): Linux builds them by `seg_max`.
            seg_max: Some(u32::from(args.queue_size.min(USUAL_QUEUE)) - 2),
            logical_block_size: image.topology().logical_block_size,
            ..BlockConfig::default()
        };
        let block = BlockDevice::new(image.capacity(), &config)
            .with_context(|| format!("serving {}", args.image.display()))?;
        Ok(Self {
            image: Arc::new(image),
            engine: args.engine,
            poll: Duration::from_micros(args.poll_us.into()),
            cpus: args.cpus.clone(),
            block,
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
        self.block.features() | if self.queues > 1 { MQ } else { 0 }
    }

    /// What requests are checked against when `features` are negotiated.
    pub(crate) fn params(&self, features: u64) -> Params {
        self.block.params(features)
    }

    /// `len` bytes of the configuration space; what lies behind its fields reads as zeroes.
    pub(crate) fn config(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut space = self.block.config().to_vec();
        if let Some(field) = space.get_mut(NUM_QUEUES..NUM_QUEUES + 2) {
            field.copy_from_slice(&self.queues.to_le_bytes());
        }
        space.iter().copied().chain(std::iter::repeat(0)).skip(offset).take(len).collect()
    }
}
