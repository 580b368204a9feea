//! What a guest's thread is asked to do. It answers by [events](super::Event).

use std::ops::RangeInclusive;

use crate::{
    backend::Backend,
    node::{DeviceId, DeviceNode},
};

/// A device to be attached.
pub struct Attachment<B: Backend> {
    /// What every device has.
    pub node: DeviceNode,
    /// What this kind has beside.
    pub config: B::Config,
    /// What it is made of.
    pub resources: B::Resources,
}

/// What a guest's thread is asked to do.
#[non_exhaustive]
pub enum Command<B: Backend> {
    /// To attach a device. When that is answered, the guest may touch its window.
    Attach(Box<Attachment<B>>),
    /// To let go of a device, and to answer its window as that of no device from then on.
    Detach(DeviceId),
    /// To answer the window of a device that is not served: reads give all ones, which no driver takes for a
    /// virtio device. Unanswered, they would be an external abort in the guest.
    Reserve(DeviceId, RangeInclusive<u64>),
    /// To leave a window that has no device here to another IOREQ server.
    Release(RangeInclusive<u64>),
    /// To log what each device has done so far.
    Report,
    /// To have each device [look](crate::Device::refresh) at what it stands on.
    Refresh,
    /// To let go of everything and to end.
    Stop,
}
