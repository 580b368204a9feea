//! What the supervisor asks of the process of a guest. It is answered by [messages](super::Message).

use std::{ops::RangeInclusive, os::fd::OwnedFd};

use serde::{Deserialize, Serialize};

use crate::{
    backend::Backend,
    node::{DeviceId, DeviceNode},
    pci::Slots,
    refusal::Refusal,
};

/// What the supervisor asks of the process of a guest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command<C, R, O> {
    /// To attach a device. When that is answered, the guest may touch its window.
    Attach {
        /// What every device has.
        node: DeviceNode,
        /// What this kind has beside.
        config: C,
        /// What it is made of.
        resources: R,
        /// How many open files travel beside this.
        files: usize,
    },
    /// To let go of a device, and to answer its window as that of no device from then on.
    Detach(DeviceId),
    /// To answer the window of a device that is not served: reads give all ones, which no driver takes for a
    /// virtio device. Unanswered, they would be an external abort in the guest.
    Reserve(DeviceId, RangeInclusive<u64>),
    /// Where devices are on the guest's PCI bus, whichever process serves them. Places without one are answered as empty.
    Places(Slots),
    /// To leave a window that has no device here to another IOREQ server.
    Release(RangeInclusive<u64>),
    /// To log what each device has done so far.
    Report,
    /// To tell what each device has done so far.
    Figures,
    /// To have each device [look](crate::Device::refresh) at what it stands on.
    Refresh,
    /// To do something with a device, which is answered by
    /// [`Message::Answered`](super::Message::Answered) with this number.
    Order(u64, DeviceId, O),
    /// To log what this filter lets pass from now on.
    LogFilter(String),
    /// To let go of everything and to end.
    Stop,
}

/// Of one backend.
pub(crate) type CommandOf<B> =
    Command<<B as Backend>::Config, <B as Backend>::Resources, <B as Backend>::Order>;

/// What the guest's thread hears of.
pub(crate) enum Input<B: Backend> {
    /// The supervisor asks something, and sends these files along.
    Command(CommandOf<B>, Vec<OwnedFd>),
    /// A supervisor is there; it is the nth, and to be told by [`Message::Hello`](super::Message::Hello) what is served.
    Connected(u64),
    /// What a device stands on is made, or can't be.
    Loaded(Box<Loaded<B>>),
    /// The supervisor is gone. Until the next one comes, nobody else tells of the guest's end.
    Disconnected,
}

/// A device that is to be attached.
pub(crate) struct Loaded<B: Backend> {
    pub(crate) node: DeviceNode,
    pub(crate) config: B::Config,
    pub(crate) loaded: Result<B::Loaded, Refusal>,
}
