//! How far a device has come.

use std::time::{Duration, Instant};

use super::refusal::AttachError;
use crate::{
    backend::Backend,
    node::{DeviceId, DeviceNode, Sharing},
    process::GuestKey,
};

/// How long a step may take before the toolstack is told that it doesn't happen. libxl gives a backend 10 s.
pub(super) const TIMEOUT: Duration = Duration::from_secs(8);

/// A device that the handshake has to do with.
pub(super) struct Device<B: Backend> {
    pub(super) stage: Stage<B>,
    /// What was opened for it is not closed here yet.
    pub(super) is_open: bool,
    /// How often it has said something to the operator.
    pub(super) notices: u8,
    /// Since when.
    since: Instant,
}

/// What a device is waiting for, if for anything.
pub(super) enum Stage<B: Backend> {
    /// A thread opens what it is made of. No longer wanted, it is closed as soon as it is open.
    Opening { read: Read<B>, wanted: bool },
    /// What was opened is closed, and isn't attached. Then the device is refused, if there is a reason to.
    Closing { refusal: Option<AttachError>, logged: bool },
    /// The guest's process attaches it, or has. What was opened for it is closed here meanwhile.
    Attaching { read: Read<B>, attached: Option<Result<(), String>> },
    /// The guest may use it, or will soon. One that was taken over may not have been announced yet.
    Serving { read: Read<B>, taken_over: bool },
    /// The guest's process lets go of it.
    Detaching { sharing: Sharing, logged: bool },
}

/// A device that is not served.
pub(super) struct Refused<B: Backend> {
    pub(super) reason: String,
    /// `None` if it could not be read.
    pub(super) read: Option<Read<B>>,
}

/// What xenstore says of a device.
pub(super) type Read<B> = (DeviceNode, <B as Backend>::Config);

impl<B: Backend> Device<B> {
    pub(super) fn new(stage: Stage<B>) -> Self {
        Self { stage, is_open: false, notices: 0, since: Instant::now() }
    }

    /// One for which something is open here.
    pub(super) fn opened(stage: Stage<B>) -> Self {
        Self { is_open: true, ..Self::new(stage) }
    }

    /// The next stage begins.
    pub(super) fn enter(&mut self, stage: Stage<B>) {
        *self = Self { is_open: self.is_open, ..Self::new(stage) };
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
            | Stage::Detaching { logged: false, .. } => Some(self.since + TIMEOUT),
            _ => None,
        }
    }

    /// Whether this process has it, or is about to.
    pub(super) fn is_of(&self, key: GuestKey, id: DeviceId) -> bool {
        self.sharing().is_some_and(|sharing| key == GuestKey { domid: id.domid, sharing })
    }

    /// Which process of its guest has it, or is about to.
    pub(super) fn sharing(&self) -> Option<Sharing> {
        match &self.stage {
            Stage::Attaching { read: (node, _), .. } | Stage::Serving { read: (node, _), .. } => {
                Some(node.sharing)
            }
            Stage::Detaching { sharing, .. } => Some(*sharing),
            Stage::Opening { .. } | Stage::Closing { .. } => None,
        }
    }

    /// What xenstore says of it, or has said, if it is not let go of.
    pub(super) fn read(&self) -> Option<&Read<B>> {
        match &self.stage {
            Stage::Opening { read, .. }
            | Stage::Attaching { read, .. }
            | Stage::Serving { read, .. } => Some(read),
            Stage::Closing { .. } | Stage::Detaching { .. } => None,
        }
    }

    /// In words, for the log.
    pub(super) fn text(&self) -> String {
        let read = self.read();
        read.map_or_else(|| "being closed".to_owned(), |(_, config)| B::describe(config))
    }
}
