//! What an author of a backend writes: which devices it serves, and what one of them does.

use std::{
    ops::Range,
    os::fd::{BorrowedFd, OwnedFd},
};

use serde::{Serialize, de::DeserializeOwned};
use virtio_dev::{PendingWrite, WriteOutcome};
use xen_virtio_sandbox::ThreadFilters;

use crate::{
    figures::Figures,
    host::{DeviceMemory, Host},
    node::{DeviceId, DeviceNode, DeviceType, NodeError, NodeReader},
    notices::Notices,
    refusal::Refusal,
    register_address::RegisterAddress,
    transport::TransportBuilder,
};

/// A kind of device.
///
/// The supervisor calls the methods that take `self`: it has the privileges of the program. The others are called in
/// the process of the guest, which has none left when it [builds](Self::build) a device. What is associated with it
/// crosses between both as bytes, and descriptors beside them.
pub trait Backend: Send + Sync + Sized + 'static {
    /// The program's name, for messages.
    const NAME: &'static str;
    /// The program's version. A supervisor goes on with the processes of guests that an earlier one has started if
    /// their versions are the same.
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    /// What the toolstack says of a device beyond [`DeviceNode`], and the operator. Two that are equal are
    /// the same device.
    type Config: Clone + PartialEq + Send + Serialize + DeserializeOwned + 'static;
    /// What a device is made of, beside the descriptors that were opened for it.
    type Resources: Send + Serialize + DeserializeOwned + 'static;
    /// Counters and the like, of one device at one time.
    type Figures: Figures;
    /// What an operator may ask of one device that is served, by the [control socket](crate::control).
    type Order: Send + Serialize + DeserializeOwned + 'static;
    /// What the process of a guest needs to know before it has devices.
    type Setup: Send + Serialize + DeserializeOwned + 'static;
    /// What the devices of one guest share, and can't be made without privileges.
    type Shared: Send + Sync + 'static;
    /// What a device is made of in the process of its guest.
    type Loaded: Send + 'static;
    /// A device that is served.
    type Device<H: Host>: Device<Figures = Self::Figures, Order = Self::Order>;

    /// Whether devices of this type are this backend's. Others are left to other backends.
    fn claims(&self, device_type: DeviceType) -> bool;

    /// Reads a device's further nodes. Must not block.
    ///
    /// # Errors
    /// Why the device can't be served.
    fn read(&self, node: &NodeReader<'_>) -> Result<Self::Config, Refusal>;

    /// Opens what the device needs. It may block: it is called on a thread of its own, and given up after some
    /// seconds.
    ///
    /// # Errors
    /// Why the device can't be served.
    fn open(
        &self,
        node: &DeviceNode,
        config: &Self::Config,
    ) -> Result<Opened<Self::Resources>, Refusal>;

    /// What a process that is to serve a guest is told.
    fn setup(&self) -> Self::Setup;

    /// How many threads all devices of one guest may have at most, those included that the kernel starts for their
    /// io_urings. The process of a guest gets no more, so that it takes no other guest's.
    fn threads(&self) -> u32 {
        1024
    }

    /// Makes what the guest's devices share. The process has one thread, and gives up its privileges after that.
    fn share(setup: Self::Setup) -> Self::Shared;

    /// Makes what a device stands on of what was opened for it. It may block: it is called on a thread of its own, and
    /// given up after some seconds.
    ///
    /// # Errors
    /// Why the device can't be served.
    fn load(
        shared: &Self::Shared,
        config: &Self::Config,
        opened: Opened<Self::Resources>,
    ) -> Result<Self::Loaded, Refusal>;

    /// Makes the device, in its reset state. Must not block: the guest waits for the same thread.
    ///
    /// # Errors
    /// Why the device can't be served.
    fn build<H: Host>(
        node: &DeviceNode,
        config: Self::Config,
        loaded: Self::Loaded,
        parts: Parts<H>,
    ) -> Result<Self::Device<H>, Refusal>;

    /// A device in words, for the log.
    fn describe(config: &Self::Config) -> String {
        let _ = config;
        String::new()
    }

    /// Every device of this kind that xenstore has when the backend starts was looked at.
    ///
    /// # Errors
    /// A node can't be read.
    fn on_listed(&self, devices: &[NodeReader<'_>]) -> Result<(), NodeError> {
        let _ = devices;
        Ok(())
    }
}

/// What a device is made of. Dropping it may block, as closing a file does.
#[derive(Debug)]
pub struct Opened<R> {
    /// What is known of it.
    pub resources: R,
    /// Open files, whose order `resources` knows.
    pub files: Vec<OwnedFd>,
}

/// What a device gets of its guest.
pub struct Parts<H: Host> {
    /// The guest's memory, as the toolstack has the device reach it.
    pub memory: DeviceMemory<H>,
    /// By which the guest reaches the device.
    pub transport: TransportBuilder<H::Model>,
    /// For what the operator should find in xenstore.
    pub notices: Notices,
    /// What each thread that the device starts is to be confined by
    /// ([`ThreadFilters::apply`](xen_virtio_sandbox::ThreadFilters::apply)).
    pub filters: ThreadFilters,
}

/// A device that is served: registers and queues. Dropping it finishes what is in flight and ends its threads.
pub trait Device: Send {
    /// What the device has done so far.
    type Figures;
    /// What an operator may ask of it.
    type Order;

    /// The guest reads `data.len()` bytes of a register, by [`Transport::read`](virtio_dev::Transport::read).
    fn read(&mut self, register: RegisterAddress, data: &mut [u8]);

    /// The guest writes `data` to a register, by [`Transport::write`](virtio_dev::Transport::write).
    fn write(&mut self, register: RegisterAddress, data: &[u8]) -> WriteOutcome;

    /// Where the guest has put the device's registers on its PCI bus: [`DeviceTransport::bar`](crate::DeviceTransport::bar).
    fn bar(&self) -> Option<Range<u64>>;

    /// Whether a write that came to [`WriteOutcome::Pending`] is still not to be answered. Asked from time to time.
    fn is_pending(&mut self, write: PendingWrite) -> bool {
        let _ = write;
        false
    }

    /// The driver has notified a queue, and goes on. A device whose queues have threads wakes that of the queue, or has a
    /// request that comes alone served here (`virtio_worker::QueueThread::notify`). Must not block: other devices of the
    /// guest, and its vCPUs, wait meanwhile.
    fn kick(&mut self, queue: u16);

    /// Serves what is to be served on the guest's thread, after traps were answered. True if it stopped with more to
    /// do, as a driver that adds requests without end must keep no other device from its own.
    fn process(&mut self) -> bool {
        false
    }

    /// Adds the descriptors, under the device's own number, that the guest's thread is to wait for in its stead
    /// (level-triggered, until they are readable).
    fn wait_for<'a>(&'a self, fds: &mut Vec<(DeviceId, BorrowedFd<'a>)>) {
        let _ = fds;
    }

    /// One of the descriptors that it [waits for](Self::wait_for) is readable. [`process`](Self::process) follows.
    fn ready(&mut self) {}

    /// Begins to end: takes no more requests, finishes what is in flight, and ends its threads, without waiting for any
    /// of that. Nothing else is asked of the device then but [`is_stopped`](Self::is_stopped).
    fn begin_stop(&mut self) {}

    /// It has ended: dropping it waits for nothing.
    fn is_stopped(&self) -> bool {
        true
    }

    /// The operator says that what the device stands on may have changed, as an image's size.
    fn refresh(&mut self) {}

    /// Does what the operator asks, and gives what has come of it, in words for the operator. Must not block: the guest
    /// waits for the same thread.
    ///
    /// # Errors
    /// Why it can't be done.
    fn order(&mut self, order: Self::Order) -> Result<String, String> {
        let _ = order;
        Err("devices of this kind take no orders".to_owned())
    }

    /// Logs what the device has done so far.
    fn report(&self) {}

    /// What the device has done so far.
    fn figures(&self) -> Self::Figures;
}
