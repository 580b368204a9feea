//! One frontend's session: the vhost-user protocol, as far as a block device needs it.
//!
//! Of rust-vmm's two crates this is built on `vhost`, which speaks the protocol, and not on
//! `vhost-user-backend`. That one's event loop takes every kick off the eventfd before the device
//! hears of it, its `Vring` owns the position of the queue, and it doesn't tell the device that a
//! ring was disabled or given another call descriptor: a thread that owns its queue can't be
//! started and stopped by it.

use std::{fs::File, io, sync::Arc};

use backend_process::LogLimit;
use tracing::debug;
use vhost::{
    VhostUserMemoryRegionBase,
    vhost_user::{
        Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
        message::{
            VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags,
            VhostUserInflight, VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures,
            VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion,
            VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
        },
    },
};
use virtio_blk_dev::Stats;

use crate::{
    device::Device,
    memory::{Memory, MemoryError},
    ring::{Addresses, Common, Ring, RingError},
};

/// As many as Linux's vhost takes by default (`max_mem_regions`); each costs a mapping.
const MEMORY_SLOTS: u64 = 64;

/// What a frontend may not ask for.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no queue {index}: the device has {queues}")]
    NoQueue { index: u32, queues: usize },
    #[error("queue {index}: {size} descriptors, where 1 to {most} are possible")]
    QueueSize { index: u32, size: u32, most: u16 },
    #[error("queue {index}: {base:#x} is no position in a split ring")]
    Base { index: u32, base: u32 },
    #[error("queue {index} without a kick descriptor: it would have to be polled without end")]
    NoKick { index: u8 },
    #[error("a descriptor that was sent can't be used: {0}")]
    Descriptor(#[from] io::Error),
    #[error("features {0:#x} were not offered")]
    Features(u64),
    #[error("more than {MEMORY_SLOTS} memory regions")]
    Slots,
    #[error("the device has an owner already")]
    Owned,
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::ReqHandlerError(io::Error::other(refusal))
    }
}

/// The state between a frontend's connection and its end; its rings stop when it is dropped.
pub(crate) struct Session {
    rings: Vec<Ring>,
    common: Common,
    owned: bool,
}

impl Session {
    pub(crate) fn new(device: Arc<Device>) -> Self {
        device.connected();
        Self {
            rings: (0..device.queues())
                .map(|index| Ring::new(index, device.queue_size()))
                .collect(),
            common: Common {
                device,
                features: None,
                memory: Memory::default(),
                limit: LogLimit::default(),
            },
            owned: false,
        }
    }

    /// Stops all rings, and gives what they have done.
    pub(crate) fn finish(&mut self) -> Stats {
        let mut all = Stats::default();
        for ring in &mut self.rings {
            ring.stop();
            all += ring.stats();
        }
        all
    }

    fn offered(&self) -> u64 {
        self.common.device.features() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    /// Changes one ring, and starts it if it now may run.
    fn with_ring<T>(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut Ring) -> std::result::Result<T, Refusal>,
    ) -> Result<T> {
        let Self { rings, common, .. } = self;
        let queues = rings.len();
        let ring = usize::try_from(index)
            .ok()
            .and_then(|index| rings.get_mut(index))
            .ok_or(Refusal::NoQueue { index, queues })?;
        let value = change(ring)?;
        ring.update(common).map_err(Refusal::from)?;
        Ok(value)
    }

    /// Changes what all rings rest on: they are stopped for it, and started again.
    fn with_all_stopped(&mut self, change: impl FnOnce(&mut Self)) -> Result<()> {
        self.rings.iter_mut().for_each(Ring::stop);
        change(self);
        let Self { rings, common, .. } = self;
        for ring in rings {
            ring.update(common).map_err(Refusal::from)?;
        }
        Ok(())
    }

    fn replace_memory(&mut self, memory: Memory) -> Result<()> {
        let (regions, bytes) = memory.extent();
        debug!(regions, bytes, "the guest's memory");
        self.with_all_stopped(|session| session.common.memory = memory)
    }

    /// Back to the state after the connection, but for what is mapped.
    fn reset(&mut self) -> Result<()> {
        self.with_all_stopped(|session| {
            session.common.features = None;
            session.common.device.reset();
            session.rings.iter_mut().for_each(|ring| ring.enabled = false);
        })
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.owned, true) {
            return Err(Refusal::Owned.into());
        }
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.owned = false;
        self.reset()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset()
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !self.offered();
        if unknown != 0 {
            return Err(Refusal::Features(unknown).into());
        }
        if self.common.features == Some(features) {
            return Ok(());
        }
        debug!(features = format_args!("{features:#x}"), "the driver's features");
        self.with_all_stopped(|session| {
            session.common.features = Some(features);
            session.common.device.accept_features(features);
            // Without the protocol features nobody will enable rings one by one.
            if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
                session.rings.iter_mut().for_each(|ring| ring.enabled = true);
            }
        })
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !self.get_protocol_features()?.bits();
        if unknown != 0 {
            return Err(Refusal::Features(unknown).into());
        }
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.rings.len() as u64)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MEMORY_SLOTS)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let memory = regions
            .iter()
            .zip(files)
            .try_fold(Memory::default(), |memory, (region, file)| memory.with(region, file))
            .map_err(Refusal::from)?;
        self.replace_memory(memory)?;
        Ok(None)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        if self.common.memory.extent().0 as u64 >= MEMORY_SLOTS {
            return Err(Refusal::Slots.into());
        }
        let memory = self.common.memory.with(region, file).map_err(Refusal::from)?;
        self.replace_memory(memory)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let memory = self.common.memory.without(region).map_err(Refusal::from)?;
        self.replace_memory(memory)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let most = self.common.device.queue_size();
        let size = u16::try_from(num).ok().filter(|size| (1..=most).contains(size));
        let size = size.ok_or(Refusal::QueueSize { index, size: num, most })?;
        self.with_ring(index, |ring| {
            if ring.size != size {
                ring.stop();
                ring.size = size;
            }
            Ok(())
        })
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let addresses = Some(Addresses { descriptors: descriptor, avail: available, used });
        self.with_ring(index, |ring| {
            if ring.addresses != addresses {
                ring.stop();
                ring.addresses = addresses;
            }
            Ok(())
        })
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Refusal::Base { index, base })?;
        self.with_ring(index, |ring| {
            ring.stop();
            ring.base = base;
            Ok(())
        })
    }

    /// Stops the ring, until it gets another kick descriptor.
    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = self.with_ring(index, |ring| {
            ring.set_kick(None);
            Ok(ring.base)
        })?;
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let file = file.ok_or(Refusal::NoKick { index })?;
        self.with_ring(index.into(), |ring| {
            ring.set_kick(Some(file));
            Ok(())
        })
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.with_ring(index.into(), |ring| {
            ring.events.call.set(file)?;
            // An interrupt to the descriptor it had may never have arrived.
            ring.events.call.signal();
            Ok(())
        })
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.with_ring(index.into(), |ring| Ok(ring.events.err.set(file)?))
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.with_ring(index, |ring| {
            if !enable {
                ring.stop();
            }
            ring.enabled = enable;
            Ok(())
        })
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let Common { device, features, .. } = &self.common;
        Ok(device.config(offset as usize, size as usize, *features))
    }

    /// The write cache, and nothing else: rings that run must see the change, and flush.
    fn set_config(&mut self, offset: u32, data: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        let Common { device, features, .. } = &self.common;
        device.write_config(offset as usize, data, *features);
        self.rings.iter().for_each(Ring::wake);
        Ok(())
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("a disk has no display"))
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("a disk has no shared objects"))
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidOperation("requests in flight are not shared"))
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(Error::InvalidOperation("requests in flight are not shared"))
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("there is no state to transfer"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("there is no state to transfer"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation("a disk has no shared memory"))
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(Error::InvalidOperation("pages written are not logged"))
    }
}
