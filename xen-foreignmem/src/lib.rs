//! A Xen guest's memory from userspace: foreign, grant and resource mappings.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use address::GRANT_BIT;
pub use domain_memory::DomainMemory;
pub use error::{MapError, MapTarget};
pub use foreign::{ForeignMemory, Holes, Privcmd, RESOURCE_GRANT_TABLE, RESOURCE_IOREQ_SERVER};
pub use grant::{CopySegment, Gntdev, GrantTable};
pub use guard::{Guard, Requests, Rings};
pub use layout::{Layout, LayoutError};
pub use mapping::{Mapping, Prot};
pub use physical::{NoPhysicalMemory, NoRegion};
pub use pinned::PinnedMemory;
pub use stats::Stats;
pub use vm_memory;

mod address;
mod batch;
mod bounce;
mod chunk;
mod chunk_cache;
mod domain_memory;
mod error;
#[cfg(feature = "test-utils")]
pub mod fake;
mod foreign;
mod grant;
mod guard;
mod layout;
mod mapping;
mod physical;
mod pinned;
mod pins;
mod stats;
mod sys;
mod window;

/// A domain's number.
pub type DomId = u16;

/// The size of Xen's pages, and so of frames and grants, whatever dom0's kernel uses.
pub const PAGE_SIZE: usize = 4096;

/// Locks. What a panicking holder left is consistent here: every change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
