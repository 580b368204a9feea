//! How the devices of one guest reach its memory.

use std::sync::Arc;

use xen_foreignmem::{DomainMemory, Layout, Retired};

use crate::{
    host::{DeviceMemory, Handles, Host},
    node::Sharing,
};

/// The two ways to a guest's memory. A device has one of them, never both: a guest that was told to
/// grant is not mapped, and one that wasn't has no grants to offer.
pub(super) struct GuestMemory<H: Host> {
    foreign: DeviceMemory<H>,
    granted: DeviceMemory<H>,
}

impl<H: Host> GuestMemory<H> {
    /// Maps nothing yet, and at most `budget` bytes.
    pub(super) fn new(handles: &Handles<H>, budget: u64) -> Self {
        let layout = Layout::default().budget(budget);
        Self {
            foreign: DomainMemory::new(Some(Arc::clone(&handles.memory)), None, layout),
            granted: DomainMemory::new(None, handles.grants.clone(), Layout::default()),
        }
    }

    /// The memory for a device that reaches it in this way.
    pub(super) fn for_device(&self, sharing: Sharing) -> DeviceMemory<H> {
        match sharing {
            Sharing::Foreign => self.foreign.clone(),
            Sharing::Grant => self.granted.clone(),
        }
    }

    /// Puts foreign mappings out of use: the guest's frames have changed. To be dropped when the guest is
    /// answered.
    pub(super) fn invalidate(&self) -> Retired {
        self.foreign.invalidate()
    }
}
