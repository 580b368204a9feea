//! A frontend, and a guest's driver of one queue in memory that both share.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::atomic::{Ordering, fence},
    time::Instant,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{
        Frontend, VhostUserFrontend,
        message::{VhostUserConfigFlags, VhostUserHeaderFlag},
    },
};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Backend, PATIENCE};

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;

pub const EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`, and the frontend's own `VHOST_USER_F_PROTOCOL_FEATURES`.
pub const BASIC: u64 = 1 << 32 | 1 << 30 | 1 << 9;

/// Where the guest's memory begins and how much it is; the frontend has it elsewhere.
pub const BASE: u64 = 0x4000_0000;
pub const LEN: usize = 1 << 20;
const HEADER: u64 = BASE + 0x8_0000;
const DATA: u64 = BASE + 0x9_0000;
const STATUS: u64 = BASE + 0xf_0000;

/// The guest's memory, and the frontend that shares it.
pub struct Vmm {
    pub frontend: Frontend,
    pub memory: GuestMemoryMmap,
}

/// One queue of the guest's driver.
pub struct Driver {
    pub index: usize,
    pub size: u16,
    pub rings: u64,
    event_idx: bool,
    kick: EventFd,
    pub call: EventFd,
    pub err: EventFd,
    pub next: u16,
}

pub fn memory() -> GuestMemoryMmap {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("memory"));
    file.set_len(LEN as u64).expect("its size");
    let range = (GuestAddress(BASE), LEN, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([range]).expect("a mapping")
}

/// Where a guest address is in this process, which is how the frontend names rings.
pub fn user(memory: &GuestMemoryMmap, guest: u64) -> u64 {
    let region = memory.find_region(GuestAddress(guest)).expect("memory");
    region.as_ptr() as u64 + (guest - region.start_addr().0)
}

fn eventfd() -> EventFd {
    EventFd::new(EFD_NONBLOCK).expect("an eventfd")
}

impl Vmm {
    /// Connects, and negotiates everything that is offered, and `features`.
    pub fn connect(backend: &Backend, features: u64) -> Self {
        Self::with_memory(backend, features, memory())
    }

    pub fn with_memory(backend: &Backend, features: u64, memory: GuestMemoryMmap) -> Self {
        let mut vmm = Self::unnegotiated(backend);
        vmm.memory = memory;
        let offered = vmm.frontend.get_features().expect("get_features");
        assert_eq!(features & !offered, 0, "{offered:#x} offered");
        vmm.frontend.set_features(features).expect("set_features");
        vmm.share().expect("set_mem_table");
        vmm
    }

    /// Connects, and negotiates what is the frontend's own, but not yet what is the guest's.
    pub fn unnegotiated(backend: &Backend) -> Self {
        let mut frontend = Frontend::from_stream(backend.connect(), 64);
        frontend.set_owner().expect("set_owner");
        frontend.get_features().expect("get_features");
        let protocol = frontend.get_protocol_features().expect("get_protocol_features");
        frontend.set_protocol_features(protocol).expect("set_protocol_features");
        // From here on every message is acknowledged, or its failure told.
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        Self { frontend, memory: memory() }
    }

    pub fn regions(&self) -> Vec<VhostUserMemoryRegionInfo> {
        let info = |region| VhostUserMemoryRegionInfo::from_guest_region(region).expect("a file");
        self.memory.iter().map(info).collect()
    }

    pub fn share(&self) -> vhost::Result<()> {
        self.frontend.set_mem_table(&self.regions()).map(drop)
    }

    /// All zeroes, as before a guest boots.
    pub fn clear(&self) {
        self.memory.write_slice(&[0; LEN], GuestAddress(BASE)).expect("the memory");
    }

    pub fn user(&self, guest: u64) -> u64 {
        user(&self.memory, guest)
    }

    pub fn config(&mut self, offset: u32, len: u32) -> Vec<u8> {
        let flags = VhostUserConfigFlags::empty();
        let buf = vec![0; len as usize];
        self.frontend.get_config(offset, len, flags, &buf).expect("get_config").1
    }

    /// Sets a queue up and enables it, from position `base` on.
    pub fn queue(&mut self, index: usize, base: u16, features: u64) -> Driver {
        let driver = Driver {
            index,
            size: 16,
            rings: BASE + 0x1_0000 * index as u64,
            event_idx: features & EVENT_IDX != 0,
            kick: eventfd(),
            call: eventfd(),
            err: eventfd(),
            next: base,
        };
        driver.set_up(self, base).expect("a queue");
        driver
    }
}

impl Driver {
    pub fn addresses(&self, vmm: &Vmm) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            desc_table_addr: vmm.user(self.rings),
            avail_ring_addr: vmm.user(self.rings + 0x1000),
            used_ring_addr: vmm.user(self.rings + 0x2000),
            ..VringConfigData::default()
        }
    }

    /// Every message that makes a queue run, in QEMU's order.
    pub fn set_up(&self, vmm: &mut Vmm, base: u16) -> vhost::Result<()> {
        let addresses = self.addresses(vmm);
        let frontend = &mut vmm.frontend;
        frontend.set_vring_num(self.index, self.size)?;
        frontend.set_vring_base(self.index, base)?;
        frontend.set_vring_addr(self.index, &addresses)?;
        frontend.set_vring_err(self.index, &self.err)?;
        frontend.set_vring_kick(self.index, &self.kick)?;
        frontend.set_vring_call(self.index, &self.call)?;
        frontend.set_vring_enable(self.index, true)
    }

    /// Starts the queue again, everything else being as it was told.
    pub fn restart(&self, vmm: &Vmm) -> vhost::Result<()> {
        vmm.frontend.set_vring_kick(self.index, &self.kick)
    }

    fn at(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.rings + offset)
    }

    pub fn used_index(&self, vmm: &Vmm) -> u16 {
        vmm.memory.load(self.at(0x2002), Ordering::Acquire).expect("the used ring")
    }

    /// Makes a chain of header, data and status available, and kicks if the device wants that.
    pub fn submit(&mut self, vmm: &Vmm, kind: u32, sector: u64, data: &[u8]) {
        let memory = &vmm.memory;
        let shift = 0x1000 * self.index as u64;
        memory.write_obj([kind, 0], GuestAddress(HEADER + shift)).expect("a header");
        memory.write_obj(sector, GuestAddress(HEADER + shift + 8)).expect("a header");
        memory.write_slice(data, GuestAddress(DATA + shift)).expect("data");
        memory.write_obj(0xff_u8, GuestAddress(STATUS + shift)).expect("a status");
        let write = u16::from(kind == IN || kind == GET_ID) * 2;
        let mut chain = vec![(HEADER + shift, 16, 0), (STATUS + shift, 1, 2)];
        if !data.is_empty() {
            chain.insert(1, (DATA + shift, data.len() as u32, write));
        }
        for (nth, &(addr, len, flags)) in chain.iter().enumerate() {
            let next = u16::from(nth + 1 < chain.len());
            let at = self.at(16 * nth as u64);
            memory.write_obj(addr, at).expect("a descriptor");
            memory.write_obj(len, GuestAddress(at.0 + 8)).expect("a descriptor");
            memory
                .write_obj([flags | next, nth as u16 + 1], GuestAddress(at.0 + 12))
                .expect("a descriptor");
        }
        self.offer(vmm, 0);
    }

    /// Makes the chain that begins at `head` available.
    pub fn offer(&mut self, vmm: &Vmm, head: u16) {
        let memory = &vmm.memory;
        let slot = 4 + 2 * u64::from(self.next % self.size);
        memory.write_obj(head, self.at(0x1000 + slot)).expect("an entry");
        // The interrupt that is wanted next, should EVENT_IDX be negotiated.
        let used_event = self.at(0x1000 + 4 + 2 * u64::from(self.size));
        memory.store(self.next, used_event, Ordering::Relaxed).expect("used_event");
        let old = self.next;
        self.next = self.next.wrapping_add(1);
        memory.store(self.next, self.at(0x1002), Ordering::Release).expect("the index");
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let avail_event = self.at(0x2000 + 4 + 8 * u64::from(self.size));
            memory.load::<u16>(avail_event, Ordering::Relaxed).expect("avail_event") == old
        } else {
            memory.load::<u16>(self.at(0x2000), Ordering::Relaxed).expect("flags") & 1 == 0
        };
        if wanted {
            self.kick.write(1).expect("a kick");
        }
    }

    /// Waits for the interrupt of everything submitted.
    pub fn wait(&self, vmm: &Vmm, backend: &Backend) {
        let start = Instant::now();
        while self.used_index(vmm) != self.next {
            assert!(start.elapsed() < PATIENCE, "no answer; the program said:\n{}", backend.log());
            readable(&self.call);
        }
    }

    /// One request and its answer: the status, and the data read.
    pub fn request(
        &mut self,
        vmm: &Vmm,
        backend: &Backend,
        (kind, sector): (u32, u64),
        data: &[u8],
    ) -> (u8, Vec<u8>) {
        self.submit(vmm, kind, sector, data);
        self.wait(vmm, backend);
        let shift = 0x1000 * self.index as u64;
        let mut read = vec![0; data.len()];
        vmm.memory.read_slice(&mut read, GuestAddress(DATA + shift)).expect("data");
        (vmm.memory.read_obj(GuestAddress(STATUS + shift)).expect("a status"), read)
    }
}

/// Waits until `event` is signalled, for a tenth of a second at most.
pub fn readable(event: &EventFd) -> bool {
    // SAFETY: the descriptor is open as long as `event` is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let tenth = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)], Some(&tenth));
    event.read().is_ok()
}
