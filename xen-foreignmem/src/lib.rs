//! A Xen guest's memory from userspace: foreign, grant and resource mappings.

pub use error::{MapError, MapTarget};
pub use foreign::{ForeignMemory, Holes, Privcmd, RESOURCE_GRANT_TABLE, RESOURCE_IOREQ_SERVER};
pub use grant::{CopySegment, Gntdev, GrantTable};
pub use mapping::{Mapping, Prot};
pub use physical::{NoPhysicalMemory, NoRegion};
pub use vm_memory;

mod batch;
mod error;
#[cfg(feature = "test-utils")]
pub mod fake;
mod foreign;
mod grant;
mod mapping;
mod physical;
mod sys;

/// A domain's number.
pub type DomId = u16;

/// The size of Xen's pages, and so of frames and grants, whatever dom0's kernel uses.
pub const PAGE_SIZE: usize = 4096;
