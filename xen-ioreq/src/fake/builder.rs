//! Making a guest.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use xen_evtchn::fake::FakeHub;
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable, FakeRam};
use xen_foreignmem::{DomId, PAGE_SIZE};

use super::domain::FakeDomain;
use super::irq::MAX_SPIS;
use super::machine::Machine;
use super::state::State;

/// What a [`FakeDomain`] is made of.
#[derive(Clone, Debug)]
pub struct Builder {
    domid: DomId,
    vcpus: u32,
    banks: Vec<(u64, u64)>,
    vcpu_timeout: Duration,
    hub: Option<HubHandle>,
    kernel_page_size: usize,
    nr_spis: u32,
}

impl FakeDomain {
    /// Starts with domain 1, with one vCPU and 16 MiB in each of two banks.
    pub fn builder() -> Builder {
        Builder {
            domid: 1,
            vcpus: 1,
            banks: vec![(0x4000_0000, 16 << 20), (0x2_0000_0000, 16 << 20)],
            vcpu_timeout: Duration::from_secs(10),
            hub: None,
            kernel_page_size: PAGE_SIZE,
            nr_spis: MAX_SPIS,
        }
    }
}

impl Default for FakeDomain {
    fn default() -> Self {
        Self::builder().build()
    }
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
    /// The guest's number; 1 by default.
    pub fn domid(mut self, domid: DomId) -> Self {
        self.domid = domid;
        self
    }

    /// How many vCPUs; 1 by default, at most 128.
    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = vcpus;
        self
    }

    /// RAM banks: address and length. 16 MiB at 0x4000_0000 and 16 MiB at 0x2_0000_0000 by default, where
    /// Xen on Arm has its two (`GUEST_RAM0_BASE`, `GUEST_RAM1_BASE` of `arch-arm.h`).
    pub fn ram(mut self, banks: &[(u64, u64)]) -> Self {
        self.banks = banks.to_vec();
        self
    }

    /// How long a blocked vCPU waits for its answer before it counts as hung; 10 s by default.
    pub fn vcpu_timeout(mut self, vcpu_timeout: Duration) -> Self {
        self.vcpu_timeout = vcpu_timeout;
        self
    }

    /// The hypervisor's event channels, to have several guests on one.
    pub fn hub(mut self, hub: &FakeHub) -> Self {
        self.hub = Some(HubHandle(hub.clone()));
        self
    }

    /// The size of the pages of the backend's kernel; 4096 by default.
    pub fn kernel_page_size(mut self, bytes: usize) -> Self {
        self.kernel_page_size = bytes;
        self
    }

    /// How many shared peripheral interrupts the guest has, from 32 on: `nr_spis` of xl.cfg. As many as a GIC can have
    /// by default.
    pub fn nr_spis(mut self, nr_spis: u32) -> Self {
        self.nr_spis = nr_spis;
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
            vcpu_timeout: self.vcpu_timeout,
            hub,
            foreign: Arc::new(
                FakeForeignMemory::new(Arc::clone(&ram))
                    .with_kernel_page_size(self.kernel_page_size),
            ),
            grants: Arc::new(
                FakeGrantTable::new(Arc::clone(&ram)).with_kernel_page_size(self.kernel_page_size),
            ),
            ram,
            state: Mutex::new(State::new(self.nr_spis)),
            changed: Condvar::new(),
        });
        FakeDomain { machine }
    }
}
