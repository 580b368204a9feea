//! The easy kind of device: requests are answered on the thread that serves the guest.

use std::{
    marker::PhantomData,
    ops::Range,
    os::fd::{BorrowedFd, OwnedFd},
};

use tracing::{Level, debug};
use virtio_dev::{
    Chain, Ignored, InlineDevice, Transport, VirtioDevice, WriteOutcome,
    vm_memory::GuestAddressSpace,
};
use virtio_worker::LogLimit;
use xen_foreignmem::{Requests, Rings};

use crate::{
    backend::{Backend, Device, Opened, Parts},
    host::Host,
    node::{DeviceId, DeviceNode, DeviceType, NodeReader},
    refusal::Refusal,
    register_address::RegisterAddress,
    transport::DeviceTransport,
};

/// A device whose requests take no time: they are answered on the thread that answers the guest's accesses to
/// registers. Others, as of a disk, implement [`Device`] with a thread for each queue.
///
/// [`InlineDevices`] is the [`Backend`] of such a kind. Nothing here but [`open`](Self::open) may block: other devices
/// of the guest, and its vCPUs, wait meanwhile.
pub trait Inline: VirtioDevice + Send + Sized + 'static {
    /// The program's name, for messages and for its run directory.
    const NAME: &'static str;
    /// The type of the devices: [`device_type`](VirtioDevice::device_type).
    const DEVICE_TYPE: DeviceType;

    /// Opens what the device needs, with the supervisor's privileges. It may block.
    ///
    /// # Errors
    /// Why the device can't be served.
    fn open(node: &DeviceNode) -> Result<Vec<OwnedFd>, Refusal> {
        let _ = node;
        Ok(Vec::new())
    }

    /// Makes the device, in its reset state, of what was [opened](Self::open). This is done in the process of the
    /// guest, which has no privileges.
    fn build(files: Vec<OwnedFd>) -> Self;

    /// Answers a request of a queue and gives the number of bytes it wrote to the chain, counted from the first
    /// writable one (virtio 1.2 §2.7.8.2).
    ///
    /// With `None` the chain stays first in its queue. It is tried again when [`ready`](Self::ready)'s descriptor is
    /// readable, and when the driver notifies the queue.
    fn request<M: GuestAddressSpace>(&mut self, queue: u16, chain: &Chain<M>) -> Option<u32>;

    /// The descriptor that is readable when a request of this queue can be answered that could not be before. It is
    /// waited for (level-triggered) only while the queue has such a request; if it is readable and the request is
    /// still not answered, the thread doesn't sleep.
    fn ready(&self, queue: u16) -> Option<BorrowedFd<'_>> {
        let _ = queue;
        None
    }

    /// The operator says that what the device stands on may have changed. True if its configuration space did, of
    /// which the driver is told then.
    fn refresh(&mut self) -> bool {
        false
    }

    /// Logs what the device has done so far. It is also called when the device's service ends.
    fn report(&self, id: DeviceId) {
        let _ = id;
    }
}

type Served<H, D> = InlineDevice<
    DeviceTransport<D>,
    Rings<<H as Host>::Memory, <H as Host>::Grants>,
    Requests<<H as Host>::Memory, <H as Host>::Grants>,
>;

/// An [`Inline`] device that is served.
pub struct InlineService<H: Host, D: Inline> {
    id: DeviceId,
    device: Served<H, D>,
    limit: LogLimit,
}

/// The backend of all devices of one [`Inline`] kind.
#[derive(Debug)]
pub struct InlineDevices<D>(PhantomData<fn() -> D>);

impl<D> InlineDevices<D> {
    /// It.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<D> Default for InlineDevices<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: Inline> Backend for InlineDevices<D> {
    const NAME: &'static str = D::NAME;
    type Config = ();
    type Resources = ();
    type Figures = ();
    type Order = ();
    type Setup = ();
    type Shared = ();
    type Loaded = Vec<OwnedFd>;
    type Device<H: Host> = InlineService<H, D>;

    fn claims(&self, device_type: DeviceType) -> bool {
        device_type == D::DEVICE_TYPE
    }

    fn read(&self, _: &NodeReader<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn open(&self, node: &DeviceNode, (): &()) -> Result<Opened<()>, Refusal> {
        Ok(Opened { resources: (), files: D::open(node)? })
    }

    fn setup(&self) {}

    /// They are served on the guest's own.
    fn threads(&self) -> u32 {
        0
    }

    fn share((): ()) {}

    fn load((): &(), (): &(), opened: Opened<()>) -> Result<Vec<OwnedFd>, Refusal> {
        Ok(opened.files)
    }

    fn build<H: Host>(
        node: &DeviceNode,
        (): (),
        files: Vec<OwnedFd>,
        parts: Parts<H>,
    ) -> Result<InlineService<H, D>, Refusal> {
        InlineService::new(node, D::build(files), parts)
    }
}

impl<H: Host, D: Inline> InlineService<H, D> {
    fn new(node: &DeviceNode, device: D, parts: Parts<H>) -> Result<Self, Refusal> {
        let Parts { memory, transport, .. } = parts;
        let transport = transport.build(device, || ())?;
        let device = InlineDevice::new(transport, memory.rings(), memory.requests());
        Ok(Self { id: node.id, device, limit: LogLimit::new() })
    }

    /// What a driver does that the device does not take is the first trace of one that stops half-way.
    fn log_ignored(&self, register: RegisterAddress, data: &[u8], why: Ignored) {
        if tracing::enabled!(Level::DEBUG)
            && let Some(dropped) = self.limit.allow()
        {
            debug!(
                id = %self.id,
                space = register.space(),
                offset = format_args!("{:#x}", register.offset()),
                ?data,
                driver_features = format_args!("{:#x}", self.device.transport().control().driver_features()),
                %why,
                dropped,
                "a write of the guest to its registers was ignored"
            );
        }
    }
}

impl<H: Host, D: Inline> Device for InlineService<H, D> {
    type Figures = ();
    type Order = ();

    fn read(&mut self, register: RegisterAddress, data: &mut [u8]) {
        self.device.read(register, data);
    }

    fn bar(&self) -> Option<Range<u64>> {
        self.device.transport().bar()
    }

    fn write(&mut self, register: RegisterAddress, data: &[u8]) -> WriteOutcome {
        match self.device.write(register, data) {
            Some(why) => {
                self.log_ignored(register, data, why);
                WriteOutcome::Ignored(why)
            }
            // A notified queue is served when the thread has answered the traps that wait.
            None => WriteOutcome::Done,
        }
    }

    /// `write` has taken every notification.
    fn kick(&mut self, _queue: u16) {}

    fn process(&mut self) -> bool {
        self.device.process(|device, queue, chain| device.request(queue, chain))
    }

    fn wait_for<'a>(&'a self, fds: &mut Vec<(DeviceId, BorrowedFd<'a>)>) {
        let device = self.device.transport().control().device();
        let ready = self.device.blocked().filter_map(|queue| device.ready(queue));
        fds.extend(ready.map(|fd| (self.id, fd)));
    }

    fn ready(&mut self) {
        let blocked: Vec<_> = self.device.blocked().collect();
        blocked.into_iter().for_each(|queue| self.device.resume(queue));
    }

    fn refresh(&mut self) {
        if self.device.device_mut().refresh() {
            self.device.transport().control().config_changed();
        }
    }

    fn report(&self) {
        self.device.transport().control().device().report(self.id);
    }

    fn figures(&self) {}
}

impl<H: Host, D: Inline> Drop for InlineService<H, D> {
    fn drop(&mut self) {
        self.report();
    }
}
