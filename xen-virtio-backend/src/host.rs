//! The hypervisor as the backend needs it: real, or fake in tests.

use std::{io, sync::Arc};

use tracing::debug;
use xen_evtchn::{EventChannel, Evtchn, Loopback};
use xen_foreignmem::{DomainMemory, ForeignMemory, Gntdev, GrantTable, Privcmd};
use xen_ioreq::{
    DomId, XenDeviceModel,
    eventfd::{EventFds, IrqFd},
};

use crate::node::Sharing;

/// Opens what serving one guest takes.
pub trait Host: Send + 'static {
    /// Device-model operations, and irqfds where the kernel has them.
    type Model: EventFds;
    /// Foreign and resource mappings.
    type Memory: ForeignMemory;
    /// Grants.
    type Grants: GrantTable;
    /// Event channels.
    type Events: EventChannel;

    /// Device-model operations on `domid`, and on no other domain.
    ///
    /// # Errors
    /// The kernel's device can't be opened, or not be restricted.
    fn model(&self, domid: DomId) -> io::Result<Arc<Self::Model>>;

    /// Descriptors of their own for `domid`, restricted to it as far as the kernel can.
    ///
    /// # Errors
    /// The kernel's devices can't be opened, or not be restricted.
    fn open(&self, domid: DomId, sharing: Sharing) -> io::Result<Handles<Self>>;
}

/// A guest's memory as one device may reach it: a handle, of which clones are cheap. It has the
/// [`GuestAddressSpace`](virtio_dev::vm_memory::GuestAddressSpace)s that a
/// [`LiveQueue`](virtio_dev::LiveQueue) needs, `rings()` and `requests()`.
pub type DeviceMemory<H> = DomainMemory<<H as Host>::Memory, <H as Host>::Grants>;

/// What serves one guest. Each guest has its own, so that each can be confined to it.
pub struct Handles<H: Host + ?Sized> {
    /// Device-model operations.
    pub model: Arc<H::Model>,
    /// Foreign and resource mappings.
    pub memory: Arc<H::Memory>,
    /// Grants, for devices that share memory by them.
    pub grants: Option<Arc<H::Grants>>,
    /// Event channels.
    pub events: Arc<H::Events>,
    /// By which commands reach the thread that sleeps on them; without it, that thread sleeps by poll(2), which costs
    /// more.
    pub bell: Option<Arc<Loopback<H::Events>>>,
}

impl<H: Host + ?Sized> Clone for Handles<H> {
    fn clone(&self) -> Self {
        Self {
            model: Arc::clone(&self.model),
            memory: Arc::clone(&self.memory),
            grants: self.grants.clone(),
            events: Arc::clone(&self.events),
            bell: self.bell.clone(),
        }
    }
}

/// The interrupt of one device.
pub struct InterruptLine<M: EventFds> {
    model: Arc<M>,
    irq: u32,
    /// Costs less than a device-model operation; `None` where the kernel has none, or no descriptor is left.
    irqfd: Option<IrqFd<M>>,
}

impl<M: EventFds> InterruptLine<M> {
    pub(crate) fn new(model: Arc<M>, irq: u32) -> Self {
        let irqfd = IrqFd::new(Arc::clone(&model), irq);
        let irqfd = irqfd.inspect_err(|error| debug!(irq, %error, "no irqfd for a device's interrupt, which is raised by device-model operations"));
        Self { model, irq, irqfd: irqfd.ok() }
    }

    /// The shared peripheral interrupt.
    pub fn irq(&self) -> u32 {
        self.irq
    }

    /// Raises it. The guest acknowledges it in the device's registers.
    ///
    /// # Errors
    /// Once, while the guest is being destroyed.
    pub fn raise(&self) -> io::Result<()> {
        match &self.irqfd {
            Some(irqfd) => irqfd.raise(),
            None => self.model.set_irq_level(self.irq, true),
        }
    }
}

/// Xen, through the kernel's devices.
#[derive(Debug)]
pub struct Xen;

impl Host for Xen {
    type Model = XenDeviceModel;
    type Memory = Privcmd;
    type Grants = Gntdev;
    type Events = Evtchn;

    fn model(&self, domid: DomId) -> io::Result<Arc<XenDeviceModel>> {
        Ok(Arc::new(XenDeviceModel::new(Arc::new(privcmd(domid)?))))
    }

    fn open(&self, domid: DomId, sharing: Sharing) -> io::Result<Handles<Self>> {
        let privcmd = Arc::new(privcmd(domid)?);
        let events = Arc::new(Evtchn::open_blocking()?);
        // Before that is no longer allowed.
        let bell = loopback(&events);
        events.restrict(domid)?;
        let grants = match sharing {
            Sharing::Foreign => None,
            Sharing::Grant => Some(Arc::new(Gntdev::open(domid)?)),
        };
        Ok(Handles {
            model: Arc::new(XenDeviceModel::new(Arc::clone(&privcmd))),
            memory: privcmd,
            grants,
            events,
            bell,
        })
    }
}

/// A way to end the sleep of who waits for these events, if there is one to be had.
pub(crate) fn loopback<E: EventChannel>(events: &Arc<E>) -> Option<Arc<Loopback<E>>> {
    let bound = Loopback::bind(events);
    let bound = bound.inspect_err(|error| debug!(%error, "no loopback event channel"));
    bound.ok().map(Arc::new)
}

/// privcmd, for `domid` alone.
fn privcmd(domid: DomId) -> io::Result<Privcmd> {
    let privcmd = Privcmd::open(domid)?;
    privcmd.restrict()?;
    Ok(privcmd)
}
