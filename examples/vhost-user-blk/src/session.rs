//! One frontend's session: the vhost-user protocol, as far as a block device needs it.
//!
//! Of rust-vmm's two crates this is built on `vhost`, which speaks the protocol, and not on
//! `vhost-user-backend`. That one's event loop takes every kick off the eventfd before the device
//! hears of it, its `Vring` owns the position of the queue, and it doesn't tell the device that a
//! ring was disabled or given another call descriptor: a thread that owns its queue can't be
//! started and stopped by it.

use std::{fs::File, sync::Arc};

use backend_process::chain;
use tracing::{debug, info, warn};
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
    memory::Memory,
    refusal::{MEMORY_SLOTS, Refusal},
    ring::{Addresses, Common},
    rings::Rings,
};

/// The state between a frontend's connection and its end; its rings stop when it is dropped.
pub(crate) struct Session {
    rings: Rings,
    owned: bool,
    /// The negotiated features of the protocol, and whether the frontend was told of any.
    protocol: u64,
    asked: bool,
}

impl Session {
    pub(crate) fn new(device: Arc<Device>) -> Self {
        device.connected();
        Self { rings: Rings::new(device), owned: false, protocol: 0, asked: false }
    }

    /// Stops all rings, and gives what they have done.
    pub(crate) fn finish(&mut self) -> Stats {
        self.rings.finish()
    }

    fn offered(&self) -> u64 {
        self.rings.common.device.features() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn replace_memory(&mut self, memory: Memory) {
        debug!(extent = ?memory.extent(), "the guest's memory: regions, bytes");
        self.rings.with_all_stopped(|_, common| common.memory = memory);
    }

    /// Whether the frontend waits for an answer where it asks for one; as `vhost` has it.
    pub(crate) fn acknowledges(&self) -> bool {
        self.asked && self.protocol & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0
    }

    /// What was not offered is left out: QEMU passes on features that it has offered its guest
    /// itself, as ANY_LAYOUT.
    fn taken(&self, asked: u64, offered: u64) -> u64 {
        let unknown = asked & !offered;
        if unknown != 0
            && let Some(dropped) = self.rings.common.limit.allow()
        {
            info!(
                features = format_args!("{unknown:#x}"),
                dropped, "the frontend accepted features that are not offered: they are ignored"
            );
        }
        asked & offered
    }

    /// Back to the state after the connection, but for what is mapped.
    fn reset(&mut self) {
        self.rings.end();
        self.rings.with_all_stopped(|_, common| {
            common.features = None;
            common.device.reset();
        });
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
        self.reset();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        self.asked = true;
        Ok(self.offered())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let features = self.taken(features, self.offered());
        if self.rings.common.features == Some(features) {
            return Ok(());
        }
        self.rings.with_all_stopped(|rings, common| {
            common.features = Some(features);
            common.device.accept_features(features);
            // Without the protocol features nobody will enable rings one by one.
            if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
                rings.iter_mut().for_each(|ring| ring.enabled = true);
            }
        });
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let offered = self.get_protocol_features()?.bits();
        self.protocol = self.taken(features, offered);
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
        self.replace_memory(memory);
        Ok(None)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        if self.rings.common.memory.extent().0 as u64 >= MEMORY_SLOTS {
            return Err(Refusal::Slots.into());
        }
        let memory = self.rings.common.memory.with(region, file).map_err(Refusal::from)?;
        self.replace_memory(memory);
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let memory = self.rings.common.memory.without(region).map_err(Refusal::from)?;
        self.replace_memory(memory);
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let most = self.rings.common.device.queue_size();
        let size = u16::try_from(num).ok().filter(|size| (1..=most).contains(size));
        self.rings.with_ring(index, |ring| {
            // A ring whose size is refused has none, and not the one it had before.
            if ring.size != size.unwrap_or(0) {
                ring.stop();
                ring.size = size.unwrap_or(0);
            }
            size.map(drop).ok_or(Refusal::QueueSize { index, size: num, most })
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
        self.rings.with_ring(index, |ring| {
            if ring.addresses != addresses {
                ring.stop();
                ring.addresses = addresses;
            }
            Ok(())
        })
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.rings.with_ring(index, |ring| {
            ring.set_base(u16::try_from(base).ok());
            ring.base().map(drop).ok_or(Refusal::Base { index, base })
        })
    }

    /// Stops the ring, until it gets another kick descriptor. This is a question that has to be
    /// answered: a ring that isn't there stands at 0.
    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = self.rings.with_ring(index, |ring| {
            ring.set_kick(None);
            Ok(ring.base().unwrap_or(0))
        });
        let base = base.unwrap_or_else(|error| {
            if let Some(dropped) = self.rings.common.limit.allow() {
                warn!(error = %chain(&error), dropped, "the frontend asked for the position of a queue that the device does not have, and got 0: give it no more queues than --queues");
            }
            0
        });
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let has_file = file.is_some();
        self.rings.start_ring(index.into(), |ring| {
            ring.set_kick(file);
            has_file.then_some(()).ok_or(Refusal::NoKick { index })
        })
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.rings.with_ring(index.into(), |ring| {
            ring.events.call.set(file)?;
            // An interrupt to the descriptor it had may never have arrived.
            ring.events.call.signal();
            Ok(())
        })
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.rings.with_ring(index.into(), |ring| Ok(ring.events.err.set(file)?))
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.rings.start_ring(index, |ring| {
            if !enable {
                ring.stop();
            }
            ring.enabled = enable;
            Ok(())
        })
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let Common { device, features, .. } = &self.rings.common;
        Ok(device.config(offset as usize, size as usize, *features))
    }

    /// The write cache, and nothing else: rings that run must see the change, and flush.
    fn set_config(&mut self, offset: u32, data: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        let Common { device, features, .. } = &self.rings.common;
        device.write_config(offset as usize, data, *features);
        self.rings.wake();
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
