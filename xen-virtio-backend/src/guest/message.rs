//! What the process of a guest tells the supervisor.

use serde::{Deserialize, Serialize};

use crate::{
    backend::Backend,
    node::{DeviceId, DeviceNode},
};

/// What the process of a guest tells the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message<C, F> {
    /// First of all.
    Hello(Hello<C>),
    /// A device was attached to its guest, or can't be, for this reason.
    Attached(DeviceId, Result<(), String>),
    /// A device is let go of, and what it stands on is closed.
    Detached(DeviceId),
    /// The window of a device that is not served is answered, or can't be.
    Reserved(DeviceId, Result<(), String>),
    /// What the operator should find in the error nodes of a device.
    Notice(DeviceId, String),
    /// What a device has done so far.
    Figures(DeviceId, F),
    /// All have told that.
    AllFigures,
    /// What has come of the [order](super::Command::Order) with this number.
    Answered(u64, Result<String, String>),
    /// The process lets go of everything, and ends.
    Ending(End),
}

/// Of one backend.
pub(crate) type MessageOf<B> = Message<<B as Backend>::Config, <B as Backend>::Figures>;

/// What a process has when a supervisor connects.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello<C> {
    /// The devices that it serves.
    pub(crate) devices: Vec<(DeviceNode, C)>,
    /// The devices that it lets go of and that have not stopped yet.
    pub(crate) stopping: Vec<DeviceId>,
}

/// Why a guest's process has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// The guest is destroyed.
    GuestDestroyed,
    /// It failed, for this reason; the guest may still run.
    Failed(String),
    /// It doesn't say, and this is what is known of it.
    Killed(String),
}

impl End {
    /// In words. The guest may still run.
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Stopped | Self::GuestDestroyed => "it has ended as if its guest had".to_owned(),
            Self::Failed(reason) | Self::Killed(reason) => reason,
        }
    }
}
