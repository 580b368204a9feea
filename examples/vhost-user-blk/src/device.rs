//! The device that every frontend is shown: the same block device as behind virtio-mmio.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use tracing::{info, warn};
use virtio_blk_dev::{
    BlockConfig, BlockDevice, BouncePool, Features, Image, ImageWarning, Params, RawImage,
    RawOptions, Serial,
};
use virtio_dev::{VirtioDevice, feature};
use virtio_worker::{CpuList, LogLimit};

use crate::{
    args::{Args, EngineKind},
    write_cache::WriteCache,
};

/// Where `writeback` is in the configuration space (virtio 1.2 §5.2.4).
const WRITEBACK: usize = 32;

/// Descriptors in a queue of QEMU's and of cloud-hypervisor's, unless told otherwise.
const USUAL_QUEUE: u16 = 128;

/// An image and how it is served.
pub struct Device {
    pub(crate) image: Arc<RawImage>,
    path: PathBuf,
    pub(crate) engine: EngineKind,
    /// What the queues' engines take memory from.
    pub(crate) bounce: BouncePool,
    pub(crate) poll: Duration,
    pub(crate) cpus: CpuList,
    state: Mutex<State>,
    limit: LogLimit,
    /// The operator was told that the image was deleted.
    told_deleted: AtomicBool,
    queues: u16,
    queue_size: u16,
}

/// What the frontend can change.
struct State {
    block: BlockDevice,
    cache: WriteCache,
}

impl Device {
    /// Opens and locks the image.
    pub fn open(args: &Args) -> anyhow::Result<Self> {
        // Where the process can't even ask, pinning will fail and say so.
        let cpus = args.cpus.clone().unwrap_or_default();
        if let Ok(Some(cpu)) = cpus.first_not_allowed() {
            bail!(
                "CPU {cpu} in --cpus is not one that this process may run on: `taskset -cp $$` shows which are"
            );
        }
        let mut options = RawOptions::new().read_only(args.read_only).direct(args.direct);
        if let Some(bytes) = args.logical_block_size {
            options = options.logical_block_size(bytes);
        }
        let image = options.open(&args.image)?;
        for warning in image.warnings() {
            let path = args.image.display();
            match warning {
                ImageWarning::OtherFormat { .. } => warn!(
                    image = %path,
                    "{warning}; this program serves raw images only: convert it with `qemu-img convert -O raw`"
                ),
                _ => warn!(image = %path, "{warning}"),
            }
        }
        let config = BlockConfig {
            serial: Serial::new(&args.serial)?,
            num_queues: args.queues,
            queue_size: args.queue_size,
            // The frontend chooses the queue's size after the driver has read this, and no chain
            // may be longer than the queue (virtio 1.2 §2.7.5.3.1): Linux builds them by `seg_max`.
            seg_max: Some(u32::from(args.queue_size.min(USUAL_QUEUE)) - 2),
            ..BlockConfig::for_image(&image)
        };
        let block = BlockDevice::new(image.capacity(), &config).with_context(|| {
            format!("{} can't be served with these options", args.image.display())
        })?;
        Ok(Self {
            image: Arc::new(image),
            path: args.image.clone(),
            engine: args.engine,
            bounce: BouncePool::new(BouncePool::DISK),
            poll: Duration::from_micros(args.poll_us.into()),
            cpus,
            state: Mutex::new(State { block, cache: WriteCache::new(config.write_back) }),
            limit: LogLimit::new(),
            told_deleted: AtomicBool::new(false),
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
        // Those of the transport are the frontend's to keep.
        self.state().block.features() | feature::VERSION_1 | feature::RING_RESET
    }

    /// What requests are checked against.
    pub(crate) fn params(&self) -> Params {
        self.state().block.params()
    }

    /// A frontend is connected: what the driver of the one before had chosen is gone, but for the
    /// write cache, which [`WriteCache`] follows.
    pub(crate) fn connected(&self) {
        if self.image.is_deleted() && !self.told_deleted.swap(true, Ordering::Relaxed) {
            warn!(
                image = %self.path.display(),
                "the image file was deleted: its contents are lost when this program ends; copy them before that, \
                 from the descriptor that `ls -l /proc/{}/fd` shows as deleted",
                std::process::id()
            );
        }
        let mut state = self.state();
        state.block.reset();
        state.cache.connected();
    }

    /// The driver's features are final.
    pub(crate) fn accept_features(&self, features: u64) {
        let mut state = self.state();
        state.block.accept_features(features);
        self.switch_cache(&mut state, features);
        if let Some(dropped) = self.limit.allow() {
            let cached = state.block.is_write_back();
            info!(
                features = format_args!("{features:#x}"),
                dropped,
                write_cache = cached,
                "the driver's features"
            );
        }
    }

    /// The driver has reset the device.
    pub(crate) fn reset(&self) {
        self.state().block.reset();
    }

    /// The driver, whose features are those if they are known, wrote to the configuration space.
    pub(crate) fn write_config(&self, offset: usize, data: &[u8], features: Option<u64>) {
        // Nothing else in it can be written (virtio 1.2 §5.2.5.1).
        let value = WRITEBACK.checked_sub(offset).and_then(|at| data.get(at));
        let Some(&value) = value else { return };
        let mut state = self.state();
        state.cache.set(value != 0);
        if let Some(features) = features {
            self.switch_cache(&mut state, features);
        }
    }

    /// `len` bytes of the configuration space; what lies behind its fields reads as zeroes.
    pub(crate) fn config(&self, offset: usize, len: usize, features: Option<u64>) -> Vec<u8> {
        let mut state = self.state();
        let fields = state.block.config().iter().copied();
        let mut bytes: Vec<_> = fields.chain(std::iter::repeat(0)).skip(offset).take(len).collect();
        let field = WRITEBACK.checked_sub(offset).and_then(|at| bytes.get_mut(at));
        if let Some(field) = field {
            *field = state.cache.read().into();
            if let Some(features) = features {
                self.switch_cache(&mut state, features);
            }
        }
        bytes
    }

    /// Has the device cache writes, or not, as the guest was told.
    fn switch_cache(&self, state: &mut State, features: u64) {
        let before = state.block.is_write_back();
        let features = Features::from_bits_truncate(features);
        if features.contains(Features::CONFIG_WCE) {
            let on = state.cache.is_on(features.contains(Features::FLUSH));
            if !state.cache.is_known()
                && let Some(dropped) = self.limit.allow()
            {
                warn!(
                    dropped,
                    "the frontend has not read the configuration since it connected, so its guest may count on a write-through cache that it saw earlier: the cache is write-through until the guest switches it, or its VMM is started again"
                );
            }
            state.block.write_config(WRITEBACK, &[on.into()]);
            if on != before
                && let Some(dropped) = self.limit.allow()
            {
                info!(dropped, write_cache = on, "the write cache is switched");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::fs::File;
    use virtio_worker::Cpu;

    #[test]
    fn the_guest_reads_the_logical_block_size_that_was_set() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(8192).unwrap();
        let args = ["vhost-user-blk", "--socket", "s", "--image", image.to_str().unwrap()];
        for (option, told) in [(&[][..], 512_u32), (&["--logical-block-size", "4096"], 4096)] {
            let args = Args::try_parse_from(args.iter().chain(option)).unwrap();
            let device = Device::open(&args).unwrap();
            // `blk_size` (virtio 1.2 §5.2.4).
            assert_eq!(device.config(20, 4, None), told.to_le_bytes());
        }
    }

    #[test]
    fn a_cpu_that_this_process_may_not_run_on_is_refused_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(8192).unwrap();
        let may = |cpu: usize| {
            let cpus: CpuList = cpu.to_string().parse().unwrap();
            cpus.first_not_allowed().unwrap().is_none()
        };
        for cpu in [(0..Cpu::END).find(|cpu| may(*cpu)), (0..Cpu::END).rfind(|cpu| !may(*cpu))] {
            let Some(cpu) = cpu else { continue };
            let args = ["vhost-user-blk", "--socket", "s", "--image", image.to_str().unwrap()];
            let list = cpu.to_string();
            let args = Args::try_parse_from(args.iter().chain(&["--cpus", &list])).unwrap();
            match Device::open(&args) {
                Ok(_) => assert!(may(cpu), "CPU {cpu}"),
                Err(error) => {
                    assert!(!may(cpu) && error.to_string().contains(&format!("CPU {cpu} ")));
                }
            }
        }
    }
}
