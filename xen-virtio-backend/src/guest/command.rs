//! What a guest's thread is asked to do.

use std::{
    ops::RangeInclusive,
    sync::{Arc, mpsc::Sender},
};

use super::error::GuestError;
use crate::{
    backend::Backend,
    node::{DeviceId, DeviceNode},
};

/// A device to be attached.
#[derive(Debug)]
pub struct Attachment<B: Backend> {
    /// What every device has.
    pub node: DeviceNode,
    /// What this kind has beside.
    pub config: B::Config,
    /// What it is made of.
    pub resources: B::Resources,
}

/// What the guest's thread is asked to do.
pub(super) enum Command<B: Backend> {
    Attach(Box<Attachment<B>>, Sender<Result<Arc<B::Figures>, GuestError>>),
    Reserve(RangeInclusive<u64>, Sender<Result<(), GuestError>>),
    Release(RangeInclusive<u64>, Sender<()>),
    Detach(DeviceId, Sender<()>),
    Report,
    Refresh,
    Stop,
}
