//! A guest without Xen, for tests of code that uses this crate.
//!
//! [`FakeDomain`] puts together the fakes of event channels and of memory with servers, ranges, interrupts and vCPUs
//! that trap. What a backend is handed ([`device_model`](FakeDomain::device_model) and so on) fails as
//! Linux and Xen do, with the same errno; [`FakeVcpu`] is the guest's side.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use xen_evtchn::fake::{FakeEvtchn, FakeHub};
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable, FakeRam};
use xen_foreignmem::{PAGE_SIZE, RESOURCE_IOREQ_SERVER};

pub use model::FakeDeviceModel;
pub use vcpu::{Access, FakeIoreq, FakeVcpu, Fault};

use crate::DomId;
use crate::sys::{FRAME_IOREQ, MAX_SERVERS, STATE_IOREQ_NONE};
use state::{Server, State};

mod irq;
mod model;
mod ranges;
mod state;
mod vcpu;

fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// A call of [`DeviceModel`](crate::DeviceModel) or [`EventFds`](crate::eventfd::EventFds) that
/// [`FakeDomain::fail_next`] can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`nr_vcpus`](crate::DeviceModel::nr_vcpus).
    NrVcpus,
    /// [`create_ioreq_server`](crate::DeviceModel::create_ioreq_server).
    Create,
    /// [`ioreq_server_info`](crate::DeviceModel::ioreq_server_info).
    Info,
    /// [`map_mmio_range`](crate::DeviceModel::map_mmio_range).
    MapRange,
    /// [`unmap_mmio_range`](crate::DeviceModel::unmap_mmio_range).
    UnmapRange,
    /// [`set_ioreq_server_state`](crate::DeviceModel::set_ioreq_server_state).
    SetState,
    /// [`destroy_ioreq_server`](crate::DeviceModel::destroy_ioreq_server).
    Destroy,
    /// [`set_irq_level`](crate::DeviceModel::set_irq_level).
    SetIrqLevel,
    /// [`irqfd`](crate::eventfd::EventFds::irqfd).
    IrqFd,
    /// [`ioeventfd`](crate::eventfd::EventFds::ioeventfd).
    IoEventFd,
}

/// What the handles of a guest share.
pub(crate) struct Machine {
    domid: DomId,
    vcpus: u32,
    patience: Duration,
    hub: FakeHub,
    ram: Arc<FakeRam>,
    foreign: Arc<FakeForeignMemory>,
    grants: Arc<FakeGrantTable>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Machine {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("domid", &self.domid).finish_non_exhaustive()
    }
}

/// What a [`FakeDomain`] is made of.
#[derive(Clone, Debug)]
pub struct Builder {
    domid: DomId,
    vcpus: u32,
    banks: Vec<(u64, u64)>,
    patience: Duration,
    hub: Option<HubHandle>,
    kernel_page_size: usize,
}

/// A hub, which has nothing to print.
#[derive(Clone)]
struct HubHandle(FakeHub);

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeHub")
    }
}

impl Builder {
    /// The guest's number; 1 unless told.
    pub fn domid(mut self, domid: DomId) -> Self {
        self.domid = domid;
        self
    }

    /// How many vCPUs; 1 unless told, and at most 128.
    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = vcpus;
        self
    }

    /// RAM banks: address and length. 16 MiB at 0x4000_0000 and 16 MiB at 0x2_0000_0000 unless told, where
    /// Xen on Arm has its two (`GUEST_RAM0_BASE`, `GUEST_RAM1_BASE` of `arch-arm.h`).
    pub fn ram(mut self, banks: &[(u64, u64)]) -> Self {
        self.banks = banks.to_vec();
        self
    }

    /// How long a blocked vCPU waits for its answer until it counts as hung; 10 s unless told.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The hypervisor's event channels, to have several guests on one.
    pub fn hub(mut self, hub: &FakeHub) -> Self {
        self.hub = Some(HubHandle(hub.clone()));
        self
    }

    /// The size of the pages of the backend's kernel; 4096 unless told.
    pub fn kernel_page_size(mut self, bytes: usize) -> Self {
        self.kernel_page_size = bytes;
        self
    }

    /// Makes the guest.
    ///
    /// # Panics
    ///
    /// On RAM that is no RAM (see [`FakeRam::new`]).
    pub fn build(self) -> FakeDomain {
        let hub = self.hub.map_or_else(FakeHub::new, |hub| hub.0);
        hub.create_domain(self.domid);
        let ram = Arc::new(FakeRam::new(self.domid, &self.banks));
        let machine = Arc::new(Machine {
            domid: self.domid,
            vcpus: self.vcpus,
            patience: self.patience,
            hub,
            foreign: Arc::new(
                FakeForeignMemory::new(Arc::clone(&ram))
                    .with_kernel_page_size(self.kernel_page_size),
            ),
            grants: Arc::new(
                FakeGrantTable::new(Arc::clone(&ram)).with_kernel_page_size(self.kernel_page_size),
            ),
            ram,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        FakeDomain { machine }
    }
}

/// A guest: vCPUs, RAM, a grant table, an interrupt controller, and the servers it has. Cheap to clone; clones
/// are the same guest.
#[derive(Clone, Debug)]
pub struct FakeDomain {
    machine: Arc<Machine>,
}

impl Default for FakeDomain {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl FakeDomain {
    /// Starts with domain 1, with one vCPU and 16 MiB in each of two banks.
    pub fn builder() -> Builder {
        Builder {
            domid: 1,
            vcpus: 1,
            banks: vec![(0x4000_0000, 16 << 20), (0x2_0000_0000, 16 << 20)],
            patience: Duration::from_secs(10),
            hub: None,
            kernel_page_size: PAGE_SIZE,
        }
    }

    /// The guest's number.
    pub fn domid(&self) -> DomId {
        self.machine.domid
    }

    /// For the backend: device-model operations.
    pub fn device_model(&self) -> Arc<FakeDeviceModel> {
        self.device_model_for(self.domid())
    }

    /// For the backend: operations on a domain of any number, through this guest's descriptor. With another than
    /// this guest's they fail: EPERM once the [foreign memory](Self::foreign_memory), which is the same
    /// descriptor, is restricted, ESRCH before.
    pub fn device_model_for(&self, domid: DomId) -> Arc<FakeDeviceModel> {
        Arc::new(FakeDeviceModel { machine: Arc::clone(&self.machine), domid })
    }

    /// For the backend: foreign and resource mappings.
    pub fn foreign_memory(&self) -> Arc<FakeForeignMemory> {
        Arc::clone(&self.machine.foreign)
    }

    /// For the backend: grants. For the guest: to grant.
    pub fn grant_table(&self) -> Arc<FakeGrantTable> {
        Arc::clone(&self.machine.grants)
    }

    /// The guest's side of its grant table: the same as [`grant_table`](Self::grant_table).
    pub fn grants(&self) -> &FakeGrantTable {
        &self.machine.grants
    }

    /// For the backend: event channels, a descriptor of its own at each call.
    ///
    /// # Errors
    ///
    /// EMFILE, ENFILE: there are no descriptors left.
    pub fn event_channel(&self) -> io::Result<Arc<FakeEvtchn>> {
        Ok(Arc::new(self.machine.hub.open()?))
    }

    /// The hypervisor's side of the event channels.
    pub fn hub(&self) -> &FakeHub {
        &self.machine.hub
    }

    /// The guest's view of its RAM.
    pub fn ram(&self) -> &Arc<FakeRam> {
        &self.machine.ram
    }

    /// A vCPU, from 0.
    ///
    /// # Panics
    ///
    /// When the guest has no such vCPU.
    pub fn vcpu(&self, vcpu: u32) -> FakeVcpu {
        assert!(vcpu < self.machine.vcpus, "the guest has {} vCPUs", self.machine.vcpus);
        FakeVcpu { machine: Arc::clone(&self.machine), vcpu }
    }

    /// How often an interrupt was raised, by level 1 or by irqfd.
    pub fn irq_count(&self, irq: u32) -> u64 {
        self.machine.state().interrupts.raised(irq)
    }

    /// The level an interrupt was last set to.
    pub fn irq_level(&self, irq: u32) -> bool {
        self.machine.state().interrupts.level(irq)
    }

    /// Waits until an interrupt has been raised `count` times in all; false when `timeout` passes first.
    pub fn wait_irq(&self, irq: u32, count: u64, timeout: Duration) -> bool {
        let start = Instant::now();
        let mut state = self.machine.state();
        while state.interrupts.raised(irq) < count {
            let Some(left) = timeout.checked_sub(start.elapsed()) else { return false };
            // Raises by eventfd don't wake this condition: look again soon.
            let nap = left.min(Duration::from_millis(1));
            let waited = self.machine.changed.wait_timeout(state, nap);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// How many IOREQ servers there are.
    pub fn servers(&self) -> usize {
        self.machine.state().servers.iter().flatten().count()
    }

    /// How many vCPUs wait for an answer of a server, each counted once a server.
    pub fn waiting_vcpus(&self) -> usize {
        let state = self.machine.state();
        let slots = |server: &Server| {
            let slots = server.slots.clone();
            (0..self.machine.vcpus)
                .filter(move |&vcpu| slots.slot(vcpu).state() != STATE_IOREQ_NONE)
                .count()
        };
        state.servers.iter().flatten().map(slots).sum()
    }

    /// How many irqfds and ioeventfds are bound.
    pub fn eventfds(&self) -> usize {
        let state = self.machine.state();
        let kicks: usize = state.servers.iter().flatten().map(|server| server.kicks.len()).sum();
        state.interrupts.bound() + kicks
    }

    /// vCPUs that hang for good, as their server was destroyed while they waited for it.
    pub fn hung_vcpus(&self) -> Vec<u32> {
        self.machine.state().hung.clone()
    }

    /// Whether Xen has crashed the guest.
    pub fn is_crashed(&self) -> bool {
        self.machine.state().crashed
    }

    /// The next `times` calls of kind `call` fail with `errno` and do nothing.
    pub fn fail_next(&self, call: Call, times: u32, errno: i32) {
        if times > 0 {
            self.machine.state().faults.push((call, times, errno));
        }
    }

    /// Destroys the guest. Its servers go at once, and operations on them fail with ENOENT. Mappings keep
    /// their pages, and as long as there is one, be it of a server's page, Xen knows the domain:
    /// [`nr_vcpus`](crate::DeviceModel::nr_vcpus) goes on answering, and event channels, which close at once, can't
    /// be bound (EINVAL). Then everything fails with ESRCH.
    pub fn destroy(&self) {
        let mut state = self.machine.state();
        state.destroyed = true;
        state.servers = Default::default();
        drop(state);
        for id in 0..MAX_SERVERS as u32 {
            self.machine.foreign.remove_resource(RESOURCE_IOREQ_SERVER, id, FRAME_IOREQ);
        }
        self.machine.ram.destroy();
        let ram = Arc::clone(&self.machine.ram);
        self.machine.hub.kill_domain(self.domid(), move || ram.is_dying());
        self.machine.changed.notify_all();
    }
}
