//! A guest.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use xen_evtchn::fake::{FakeEvtchn, FakeHub};
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable, FakeRam};
use xen_foreignmem::{DomId, RESOURCE_IOREQ_SERVER};

use super::call::Call;
use super::machine::Machine;
use super::model::FakeDeviceModel;
use super::state::Server;
use super::vcpu::FakeVcpu;
use crate::sys::{FRAME_IOREQ, MAX_SERVERS, STATE_IOREQ_NONE};

/// A guest: vCPUs, RAM, a grant table, an interrupt controller, and the servers it has. Cheap to clone; clones
/// are the same guest.
#[derive(Clone, Debug)]
pub struct FakeDomain {
    pub(super) machine: Arc<Machine>,
}

impl FakeDomain {
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

    /// How many irqfds are bound.
    pub fn eventfds(&self) -> usize {
        self.machine.state().interrupts.bound()
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
