//! The hypervisor as the backend needs it: real, or fake in tests.

use std::{io, sync::Arc};

use xen_evtchn::{EventChannel, Evtchn};
use xen_foreignmem::{ForeignMemory, Gntdev, GrantTable, Privcmd};
use xen_ioreq::{DeviceModel, DomId, XenDeviceModel};

/// Opens what serving one guest takes.
pub trait Platform: Send + 'static {
    /// Device-model operations.
    type Model: DeviceModel;
    /// Foreign and resource mappings.
    type Memory: ForeignMemory;
    /// Grants.
    type Grants: GrantTable;
    /// Event channels.
    type Events: EventChannel;

    /// Descriptors of their own for `domid`, confined to it as far as the kernel can.
    fn open(&self, domid: DomId) -> io::Result<Handles<Self>>;
}

/// What serves one guest. Each guest has its own, so that each can be confined to it.
pub struct Handles<P: Platform + ?Sized> {
    /// Device-model operations.
    pub model: Arc<P::Model>,
    /// Foreign and resource mappings.
    pub memory: Arc<P::Memory>,
    /// Grants.
    pub grants: Arc<P::Grants>,
    /// Event channels.
    pub events: Arc<P::Events>,
}

impl<P: Platform + ?Sized> Clone for Handles<P> {
    fn clone(&self) -> Self {
        Self {
            model: Arc::clone(&self.model),
            memory: Arc::clone(&self.memory),
            grants: Arc::clone(&self.grants),
            events: Arc::clone(&self.events),
        }
    }
}

/// Xen, through the kernel's devices.
pub struct Xen;

impl Platform for Xen {
    type Model = XenDeviceModel;
    type Memory = Privcmd;
    type Grants = Gntdev;
    type Events = Evtchn;

    fn open(&self, domid: DomId) -> io::Result<Handles<Self>> {
        let privcmd = Privcmd::open(domid)?;
        privcmd.restrict()?;
        let privcmd = Arc::new(privcmd);
        let events = Evtchn::open()?;
        events.restrict(domid)?;
        Ok(Handles {
            model: Arc::new(XenDeviceModel::new(Arc::clone(&privcmd))),
            memory: privcmd,
            grants: Arc::new(Gntdev::open(domid)?),
            events: Arc::new(events),
        })
    }
}
