//! How the disks of one guest reach its memory.

use std::sync::Arc;

use xen_foreignmem::{DomainMemory, Layout, Retired};

use crate::platform::{Handles, Platform};

/// A guest's memory as one disk may reach it.
pub type DiskMemory<P> = DomainMemory<<P as Platform>::Memory, <P as Platform>::Grants>;

/// The two ways to a guest's memory. A disk has one of them, never both: a guest that was told to
/// grant is not mapped, and one that wasn't has no grants to offer.
pub struct GuestMemory<P: Platform> {
    foreign: DiskMemory<P>,
    granted: DiskMemory<P>,
}

impl<P: Platform> GuestMemory<P> {
    /// Maps nothing yet, and at most `budget` bytes.
    pub fn new(handles: &Handles<P>, budget: u64) -> Self {
        let layout = Layout::default().budget(budget);
        Self {
            foreign: DomainMemory::new(Some(Arc::clone(&handles.memory)), None, layout),
            granted: DomainMemory::new(None, Some(Arc::clone(&handles.grants)), Layout::default()),
        }
    }

    /// The memory for a disk whose `grant_usage` is `grants`.
    pub fn for_disk(&self, grants: bool) -> DiskMemory<P> {
        if grants { self.granted.clone() } else { self.foreign.clone() }
    }

    /// Puts foreign mappings out of use: the guest's frames have changed. To be dropped when the guest is
    /// answered.
    pub fn invalidate(&self) -> Retired {
        self.foreign.invalidate()
    }
}
