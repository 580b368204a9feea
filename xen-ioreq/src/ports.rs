//! The event channels of a server's vCPUs.

use std::io;
use std::sync::Arc;

use xen_evtchn::{EventChannel, Port};

/// The ports of all vCPUs, whatever the event channel behind them.
pub(crate) trait Ports: Send + Sync {
    /// Notifies a vCPU.
    fn notify(&self, vcpu: u32) -> io::Result<()>;

    /// The same ports, to be kept.
    fn share(&self) -> Box<dyn Ports>;
}

impl<E: EventChannel> Ports for Arc<[Port<E>]> {
    fn notify(&self, vcpu: u32) -> io::Result<()> {
        self[vcpu as usize].notify()
    }

    fn share(&self) -> Box<dyn Ports> {
        Box::new(Self::clone(self))
    }
}
