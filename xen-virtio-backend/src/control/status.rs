//! What the supervisor knows of devices.

use serde::{Deserialize, Serialize};
use xen_ioreq::DomId;

use crate::{
    backend::Backend,
    node::{DeviceId, DeviceNode},
};

/// Who a guest is, beside its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GuestName {
    /// `name` of its `xl.cfg`; a rename may change it.
    pub name: Option<String>,
    /// Stays the same over reboots of the guest.
    pub uuid: Option<String>,
}

/// How far a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeviceState {
    /// What it is made of is opened, or its guest's process attaches it.
    Opening,
    /// The guest may use it.
    Serving,
    /// It is let go of.
    Closing {
        /// It takes long: what it stands on does not answer.
        stuck: bool,
    },
    /// It is not served, or not any more, for this reason.
    Refused(String),
}

/// A device of a guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceStatus<C, F> {
    /// Which.
    pub id: DeviceId,
    /// The guest.
    pub guest: GuestName,
    /// How far it is.
    pub state: DeviceState,
    /// What the toolstack says of it; `None` of one that could not be read, or is let go of.
    pub read: Option<(DeviceNode, C)>,
    /// The process that serves it.
    pub pid: Option<u32>,
    /// What it has done so far. The guest's earlier incarnations, before its reboots, are counted in.
    pub figures: Option<F>,
}

/// Of one backend.
pub type DeviceStatusOf<B> = DeviceStatus<<B as Backend>::Config, <B as Backend>::Figures>;

/// What the supervisor knows of all devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status<C, F> {
    /// Each device, ordered by its id.
    pub devices: Vec<DeviceStatus<C, F>>,
    /// Guests that are served by processes of another version, whose devices aren't known.
    pub unknown: Vec<DomId>,
}

/// Of one backend.
pub type StatusOf<B> = Status<<B as Backend>::Config, <B as Backend>::Figures>;
