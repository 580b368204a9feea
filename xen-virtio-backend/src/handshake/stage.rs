//! How far a device has come.

use std::time::{Duration, Instant};

use super::refusal::AttachError;
use crate::{backend::Backend, node::DeviceNode};

/// How long a step may take before the toolstack is told that it doesn't happen. libxl gives a backend 10 s.
pub(super) const TIMEOUT: Duration = Duration::from_secs(8);

/// A device that the handshake has to do with.
pub(super) struct Device<B: Backend> {
    pub(super) stage: Stage<B>,
    /// Since when.
    since: Instant,
}

/// What a device is waiting for, if for anything.
pub(super) enum Stage<B: Backend> {
    /// A thread opens what it is made of. No longer wanted, it is closed as soon as it is open.
    Opening { read: Read<B>, wanted: bool },
    /// A thread closes what was opened and is not attached. Then the device is refused, if there is a reason to.
    Closing { refusal: Option<AttachError>, logged: bool },
    /// The guest's thread attaches it.
    Attaching { read: Read<B> },
    /// The guest may use it, or will soon.
    Serving { text: String },
    /// The guest's thread lets go of it.
    Detaching { logged: bool },
}

/// What xenstore says of a device.
pub(super) type Read<B> = (DeviceNode, <B as Backend>::Config);

impl<B: Backend> Device<B> {
    pub(super) fn new(stage: Stage<B>) -> Self {
        Self { stage, since: Instant::now() }
    }

    /// Whether somebody else's answer is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        !matches!(self.stage, Stage::Serving { .. })
    }

    /// When it has taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Opening { wanted: true, .. }
            | Stage::Attaching { .. }
            | Stage::Closing { logged: false, .. }
            | Stage::Detaching { logged: false } => Some(self.since + TIMEOUT),
            _ => None,
        }
    }

    /// Whether its guest has to do with it, and lets go of it when it ends.
    pub(super) fn is_the_guests(&self) -> bool {
        !matches!(self.stage, Stage::Opening { .. } | Stage::Closing { .. })
    }

    /// In words, for the log.
    pub(super) fn text(&self) -> String {
        match &self.stage {
            Stage::Opening { read: (_, config), .. } | Stage::Attaching { read: (_, config) } => {
                B::describe(config)
            }
            Stage::Serving { text } => text.clone(),
            Stage::Closing { .. } | Stage::Detaching { .. } => "being closed".to_owned(),
        }
    }
}
