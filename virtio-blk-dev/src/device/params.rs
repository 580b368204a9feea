use std::sync::Arc;

use super::limits::Limits;
use super::live::Live;
use super::serial::Serial;

/// What a [`Worker`](crate::Worker) needs to know of its device; see
/// [`BlockDevice::params`](crate::BlockDevice::params). The capacity and the write cache, which can change
/// while workers run, change for all of them at once.
#[derive(Clone, Debug)]
pub struct Params {
    pub(crate) live: Arc<Live>,
    pub(crate) read_only: bool,
    pub(crate) serial: Serial,
    pub(crate) limits: Limits,
    /// `VIRTIO_F_IN_ORDER` is offered: requests have to be used in order.
    pub(crate) in_order: bool,
}
