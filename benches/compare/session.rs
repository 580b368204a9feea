//! A session with a device of another process, over vhost-user.

use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _,
    GuestRegionMmap,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;
use xen_virtio_benches::{Driver, QueueLayout, RAM};

use crate::client::{PATIENCE, Port};

/// `VIRTIO_BLK_F_FLUSH`, `VIRTIO_BLK_F_MQ`, `VIRTIO_F_EVENT_IDX`, `VIRTIO_F_VERSION_1`.
const FLUSH: u64 = 1 << 9;
const MQ: u64 = 1 << 12;
const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

/// Memory that driver and device share: `queues` times `layout`.
pub(crate) struct SharedMemory {
    memory: GuestMemoryMmap<()>,
    layout: QueueLayout,
    queues: u16,
}

impl SharedMemory {
    pub(crate) fn new(layout: QueueLayout, queues: u16) -> Result<Self> {
        let len = layout.len() * usize::from(queues);
        let file = memfd_create("compare", MemfdFlags::CLOEXEC).context("making a memfd")?;
        ftruncate(&file, len as u64).context("sizing the memfd")?;
        let range = (GuestAddress(RAM), len, Some(FileOffset::new(file.into(), 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]);
        Ok(Self { memory: memory.context("mapping the memfd")?, layout, queues })
    }

    pub(crate) fn memory(&self) -> &GuestMemoryMmap<()> {
        &self.memory
    }

    fn region(&self) -> Result<&GuestRegionMmap<()>> {
        self.memory.iter().next().context("the memory has no region")
    }

    /// A driver for each queue. Called once: two drivers of one queue would disagree.
    pub(crate) fn drivers(&self) -> Result<Vec<Driver<'_>>> {
        let all = self.region()?.as_volatile_slice().context("the whole memory")?;
        let len = self.layout.len();
        (0..usize::from(self.queues))
            .map(|queue| {
                let part = all.subslice(queue * len, len).context("a queue's memory")?;
                Ok(Driver::new(part, RAM + (queue * len) as u64, self.layout))
            })
            .collect()
    }
}

/// A connection, its queues running.
pub(crate) struct Session {
    /// The device serves the queues for as long as the connection stands.
    _frontend: Frontend,
    kicks: Vec<EventFd>,
    _calls: Vec<EventFd>,
    epoll: Epoll,
}

impl Session {
    /// Connects to the device at `socket`, whose disk must have `image_len` bytes, and starts a
    /// queue for each part of `memory`.
    pub(crate) fn connect(socket: &Path, memory: &SharedMemory, image_len: u64) -> Result<Self> {
        let queues = memory.queues;
        let mut frontend = Frontend::connect(socket, queues.into())
            .with_context(|| format!("connecting to {}", socket.display()))?;
        negotiate(&mut frontend, queues, image_len)?;
        let region = memory.region()?;
        let info = VhostUserMemoryRegionInfo::from_guest_region(region);
        frontend.set_mem_table(&[info.context("describing the memory")?]).context("memory")?;

        let epoll = Epoll::new().context("making an epoll")?;
        let mut session =
            Self { _frontend: frontend.clone(), kicks: Vec::new(), _calls: Vec::new(), epoll };
        for queue in 0..usize::from(queues) {
            session
                .start(&mut frontend, memory, queue)
                .with_context(|| format!("queue {queue}"))?;
        }
        Ok(session)
    }

    fn start(
        &mut self,
        frontend: &mut Frontend,
        memory: &SharedMemory,
        queue: usize,
    ) -> Result<()> {
        let layout = memory.layout;
        let start = memory.region()?.as_ptr().addr() + queue * layout.len();
        let [kick, call] = [event()?, event()?];
        // Edges are enough, and the counter needn't be read: one system call an interrupt.
        let edges = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, queue as u64);
        self.epoll
            .ctl(ControlOperation::Add, call.as_raw_fd(), edges)
            .context("watching for interrupts")?;
        frontend.set_vring_num(queue, layout.queue_size()).context("size")?;
        frontend.set_vring_base(queue, 0).context("base")?;
        let addresses = VringConfigData {
            queue_max_size: layout.queue_size(),
            queue_size: layout.queue_size(),
            flags: 0,
            desc_table_addr: (start + layout.desc_table()) as u64,
            used_ring_addr: (start + layout.used_ring()) as u64,
            avail_ring_addr: (start + layout.avail_ring()) as u64,
            log_addr: None,
        };
        frontend.set_vring_addr(queue, &addresses).context("addresses")?;
        frontend.set_vring_call(queue, &call).context("call")?;
        frontend.set_vring_kick(queue, &kick).context("kick")?;
        frontend.set_vring_enable(queue, true).context("enabling")?;
        self.kicks.push(kick);
        self._calls.push(call);
        Ok(())
    }
}

/// qemu-storage-daemon makes the shared descriptor non-blocking, which would be so for both ends;
/// so it is for every device.
fn event() -> Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).context("making an eventfd")
}

fn negotiate(frontend: &mut Frontend, queues: u16, image_len: u64) -> Result<()> {
    frontend.set_owner().context("owning the device")?;
    let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    let wanted = FLUSH | EVENT_IDX | VERSION_1 | protocol | if queues > 1 { MQ } else { 0 };
    let offered = frontend.get_features().context("features")?;
    ensure!(wanted & !offered == 0, "the device lacks the features {:#x}", wanted & !offered);
    let offered = frontend.get_protocol_features().context("protocol features")?;
    let needed = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ;
    ensure!(offered.contains(needed), "the device lacks of {needed:?}: it has {offered:?}");
    let ack = offered & VhostUserProtocolFeatures::REPLY_ACK;
    frontend.set_protocol_features(needed | ack).context("protocol features")?;
    if !ack.is_empty() {
        // What the device refuses is said where it is asked, not found out later.
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    let has = frontend.get_queue_num().context("number of queues")?;
    ensure!(has >= queues.into(), "the device has {has} queues, not {queues}");
    frontend.set_features(wanted).context("features")?;
    let (_, config) = frontend
        .get_config(0, 8, VhostUserConfigFlags::empty(), &[0; 8])
        .context("configuration space")?;
    let capacity = <[u8; 8]>::try_from(config.as_slice()).context("configuration space")?;
    let capacity = u64::from_le_bytes(capacity) * 512;
    ensure!(capacity == image_len, "a disk of {capacity} bytes over an image of {image_len}");
    Ok(())
}

impl Port for Session {
    #[inline]
    fn kick(&mut self, queue: usize) -> Result<()> {
        self.kicks[queue].write(1).context("kicking")
    }

    #[inline]
    fn pause(&mut self) {
        std::hint::spin_loop();
    }

    fn sleep(&mut self) -> Result<bool> {
        let mut events = [EpollEvent::default(); 4];
        match self.epoll.wait(PATIENCE.as_millis() as i32, &mut events) {
            Ok(ready) => Ok(ready > 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error).context("waiting for an interrupt"),
        }
    }
}
