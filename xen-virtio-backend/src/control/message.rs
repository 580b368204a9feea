//! What is said over the control socket: one request, and its answer in one or more replies.

use serde::{Deserialize, Serialize};
use xen_ioreq::DomId;

use super::status::DeviceStatus;
use crate::{backend::Backend, node::DeviceId};

/// What an operator wants.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request<O> {
    /// To know what there is, and what it does.
    Status,
    /// One device to do something.
    Order(DeviceId, O),
    /// The log to contain what this filter lets pass.
    LogFilter(String),
}

/// Of one backend.
pub(crate) type RequestOf<B> = Request<<B as Backend>::Order>;

/// A part of the answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply<C, F> {
    /// There is this device.
    Device(Box<DeviceStatus<C, F>>),
    /// The devices of this guest aren't known.
    Unknown(DomId),
    /// The last one: what has come of the request, or why nothing has.
    Done(Result<String, String>),
}

/// Of one backend.
pub(crate) type ReplyOf<B> = Reply<<B as Backend>::Config, <B as Backend>::Figures>;
