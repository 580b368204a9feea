//! By what a guest reaches a device.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use backend_process::chain;
use tracing::{debug, info, warn};
use virtio_dev::{
    ControlPlane, Ignored, IrqLine, Queues, Status, Transport, VirtioDevice, WriteOutcome,
};
use virtio_mmio_dev::{MmioTransport, read_placeholder};
use virtio_pci_dev::{MsiLines, PciTransport};
use xen_ioreq::eventfd::EventFds;

use crate::{
    host::InterruptLine,
    node::{DeviceId, DeviceNode, Sharing},
    notices::Notices,
    pci::SpiLines,
    refusal::Refusal,
    register_address::RegisterAddress,
};

/// What a [`DeviceTransport`] is made of, beside the device.
pub struct TransportBuilder<M: EventFds> {
    id: DeviceId,
    sharing: Sharing,
    interrupt: InterruptLine<M>,
    /// Of the bus, if the device may be on it.
    lines: Option<SpiLines<M>>,
    notices: Notices,
}

impl<M: EventFds> TransportBuilder<M> {
    pub(crate) fn new(
        node: &DeviceNode,
        interrupt: InterruptLine<M>,
        lines: Option<SpiLines<M>>,
        notices: Notices,
    ) -> Self {
        Self { id: node.id, sharing: node.sharing, interrupt, lines, notices }
    }

    /// The transport of `device`. At each interrupt that it raises it calls `raised`.
    ///
    /// # Errors
    /// The device has queues that no device has.
    pub fn build<D: VirtioDevice>(
        self,
        device: D,
        raised: impl Fn() + Send + Sync + 'static,
    ) -> Result<DeviceTransport<D>, Refusal> {
        let Self { id, sharing, interrupt, lines, notices } = self;
        let (raised, grants) = (Arc::new(raised), sharing == Sharing::Grant);
        // Not when the guest looks there: a device that can't be there stays in its window.
        let can_be_on_bus = lines.is_some().then(|| PciTransport::check(&device));
        if let Some(Err(error)) = &can_be_on_bus {
            warn!(%id, error = %chain(error), "the device can't be on the guest's PCI bus, and is in its virtio-mmio window");
        }
        let lines = lines.filter(|_| matches!(can_be_on_bus, Some(Ok(()))));
        let bus = lines.map(|lines| -> Box<dyn MsiLines> {
            let (raised, is_told) = (Arc::clone(&raised), AtomicBool::new(false));
            Box::new(BusLines { id, lines, raised, notices, is_told })
        });
        let line = Line { id, interrupt: Arc::new(interrupt), raised };
        let mmio = MmioTransport::builder(device, line).access_platform(grants);
        let mmio = mmio.build().map_err(Refusal::new)?;
        Ok(DeviceTransport { id, grants, on: Some(On::Mmio(mmio, bus)) })
    }
}

/// By what a guest reaches a device: its virtio-mmio window at first; and if it has a place on the guest's PCI bus, that
/// from when the guest looks there for devices, which guests do before their drivers begin. The window is that of no
/// device then (device ID 0, virtio 1.2 §4.2.3.1.1). A device that a driver uses already stays where it is.
pub struct DeviceTransport<D> {
    id: DeviceId,
    grants: bool,
    /// `None` only while it changes.
    on: Option<On<D>>,
}

/// Why there is a transport.
const ALWAYS: &str = "a transport is lacking only within `look_at_bus`";

enum On<D> {
    /// With what it takes to change to the bus.
    Mmio(MmioTransport<D>, Option<Box<dyn MsiLines>>),
    Pci(Box<PciTransport<D>>),
}

impl<D: VirtioDevice> DeviceTransport<D> {
    /// Where the guest has put the device's registers on its PCI bus, and reaches them there.
    pub fn bar(&self) -> Option<Range<u64>> {
        match &self.on {
            Some(On::Pci(pci)) => pci.bar(),
            _ => None,
        }
    }

    /// The guest looks for devices on its bus, and finds this one there unless a driver uses it.
    fn look_at_bus(&mut self) {
        self.on = match self.on.take() {
            Some(On::Mmio(mmio, Some(lines))) if mmio.status() == Status::empty() => {
                let lines = move |address, data| lines.line(address, data);
                let pci = PciTransport::builder(mmio.into_device(), lines);
                let pci = pci.access_platform(self.grants).build();
                info!(id = %self.id, "the guest has looked at its PCI bus, and has the device there");
                Some(On::Pci(Box::new(pci.expect("a device that was checked and built before"))))
            }
            on => on,
        };
    }
}

impl<D: VirtioDevice> Transport for DeviceTransport<D> {
    type Device = D;
    type Address = RegisterAddress;

    fn read(&mut self, address: RegisterAddress, data: &mut [u8]) {
        if matches!((&self.on, address), (Some(On::Mmio(..)), RegisterAddress::PciConfig(_))) {
            self.look_at_bus();
        }
        match (&mut self.on, address) {
            (Some(On::Mmio(mmio, _)), RegisterAddress::Mmio(offset)) => mmio.read(offset, data),
            (Some(On::Pci(pci)), RegisterAddress::PciBar(offset)) => pci.bar_read(offset, data),
            (Some(On::Pci(pci)), RegisterAddress::PciConfig(offset)) => {
                pci.config_read(offset, data);
            }
            (Some(On::Pci(_)), RegisterAddress::Mmio(offset)) => read_placeholder(offset, data),
            _ => data.fill(0xff),
        }
    }

    fn write(
        &mut self,
        address: RegisterAddress,
        data: &[u8],
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        match (&mut self.on, address) {
            (Some(On::Mmio(mmio, _)), RegisterAddress::Mmio(offset)) => {
                mmio.write(offset, data, queues)
            }
            (Some(On::Pci(pci)), RegisterAddress::PciBar(offset)) => {
                pci.bar_write(offset, data, queues)
            }
            (Some(On::Pci(pci)), RegisterAddress::PciConfig(offset)) => {
                pci.config_write(offset, data, queues)
            }
            _ => WriteOutcome::Ignored(Ignored::NoRegister),
        }
    }

    fn resume(&mut self, queues: &mut impl Queues<D>) {
        match &mut self.on {
            Some(On::Mmio(mmio, _)) => mmio.resume(queues),
            Some(On::Pci(pci)) => pci.resume(queues),
            None => {}
        }
    }

    fn queue_stopped(&mut self, queue: u16) {
        match &mut self.on {
            Some(On::Mmio(mmio, _)) => mmio.queue_stopped(queue),
            Some(On::Pci(pci)) => pci.queue_stopped(queue),
            None => {}
        }
    }

    fn control(&self) -> &ControlPlane<D> {
        match self.on.as_ref().expect(ALWAYS) {
            On::Mmio(mmio, _) => mmio.control(),
            On::Pci(pci) => pci.control(),
        }
    }

    fn device_mut(&mut self) -> &mut D {
        match self.on.as_mut().expect(ALWAYS) {
            On::Mmio(mmio, _) => mmio.device_mut(),
            On::Pci(pci) => pci.device_mut(),
        }
    }
}

/// An interrupt of a device.
struct Line<M: EventFds, F> {
    id: DeviceId,
    interrupt: Arc<InterruptLine<M>>,
    raised: Arc<F>,
}

impl<M: EventFds, F: Fn() + Send + Sync> IrqLine for Line<M, F> {
    fn raise(&self) {
        (self.raised)();
        if let Err(error) = self.interrupt.raise() {
            // Happens once, while the guest is being destroyed.
            debug!(id = %self.id, irq = self.interrupt.irq(), error = %chain(&error), "the interrupt could not be raised");
        }
    }
}

/// What a device on the bus raises by messages.
struct BusLines<M: EventFds, F> {
    id: DeviceId,
    lines: SpiLines<M>,
    raised: Arc<F>,
    notices: Notices,
    /// The operator finds in xenstore that an interrupt can't be raised.
    is_told: AtomicBool,
}

impl<M: EventFds, F: Fn() + Send + Sync + 'static> MsiLines for BusLines<M, F> {
    fn line(&self, address: u64, data: u32) -> Option<Arc<dyn IrqLine>> {
        match self.lines.of_message(address, data) {
            Ok(interrupt) => {
                let raised = Arc::clone(&self.raised);
                Some(Arc::new(Line { id: self.id, interrupt, raised }))
            }
            Err(error) => {
                self.lines.tell(&self.id, &error);
                if !self.is_told.swap(true, Ordering::Relaxed) {
                    self.notices.tell(self.id, &chain(&error).to_string());
                }
                None
            }
        }
    }
}
