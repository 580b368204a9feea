//! A Xen guest's memory from userspace: foreign, grant and resource mappings.
//!
//! A device model in dom0 (or a driver domain) reaches the memory of the guest it serves in two ways:
//! by privilege, mapping frames of the guest's RAM through `/dev/xen/privcmd` ([`ForeignMemory`],
//! [`Privcmd`]), or by permission, mapping or copying pages that the guest granted to it through
//! `/dev/xen/gntdev` ([`GrantTable`], [`Gntdev`]). Mappings are owned values ([`Mapping`]) that unmap
//! themselves once. [`DomainMemory`] puts both behind vm-memory's
//! [`GuestMemory`](vm_memory::GuestMemory), as virtio's `xen,grant-dma` needs it: addresses with
//! bit 63 are grants, others are RAM.
//!
//! * [`DomainMemory::rings`] is for a queue's rings: mapped when first touched, until the guard is
//!   dropped.
//! * [`DomainMemory::requests`] is for what a request points to, with a guard for each request: grants
//!   are copied as far as there is room for copies, else mapped, and all are given back when the guard is
//!   dropped. RAM is mapped in chunks that are cached.
//!
//! # Example
//!
//! On the fake that the feature `test-utils` brings; `Privcmd::open(domid)` and `Gntdev::open(domid)`
//! take its place on Xen.
//!
//! ```
//! use std::sync::Arc;
//! use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
//! use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable, FakeRam};
//! use xen_foreignmem::{DomainMemory, GRANT_BIT, Layout};
//!
//! // The guest: 1 MiB of RAM, and a buffer in it that it grants to us.
//! let ram = Arc::new(FakeRam::new(1, &[(0x4000_0000, 1 << 20)]));
//! let grants = Arc::new(FakeGrantTable::new(ram.clone()));
//! let gref = grants.grant(0x40007, false);
//! ram.write(0x4000_7010, b"ping")?;
//!
//! // The backend.
//! let foreign = Arc::new(FakeForeignMemory::new(ram.clone()));
//! let memory = DomainMemory::new(Some(foreign), Some(grants.clone()), Layout::arm());
//! let requests = memory.requests();
//! let request = requests.memory();
//! let buffer = GuestAddress(GRANT_BIT | u64::from(gref) << 12 | 0x10);
//! assert_eq!(&request.read_obj::<[u8; 4]>(buffer)?, b"ping");
//! assert_eq!(&request.read_obj::<[u8; 4]>(GuestAddress(0x4000_7010))?, b"ping");
//! request.write_slice(b"pong", buffer)?;
//! drop(request); // The grant is given back; now publish the used entry.
//!
//! let mut answer = [0; 4];
//! ram.read(0x4000_7010, &mut answer)?;
//! assert_eq!(&answer, b"pong");
//! grants.end_access(gref)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a guest can do, and what it gets
//!
//! | It | gets |
//! |---|---|
//! | names an address that is not RAM, wraps around, or crosses the end of a bank | an error of that access |
//! | names RAM that it gave back (a hole) | an error; each try costs one page's mapping call |
//! | names a grant that it did not make, or writes to one made read-only | an error, or a count in [`Stats::copy_failures`] |
//! | touches all of its RAM | at most [`Layout::budget`] mapped; errors where even the requests in flight need more |
//! | points a request at endless grants | an error at [`Layout::grants_per_guard`] |
//! | keeps many small requests in flight | at most [`Layout::bounce_pages`] copies, mappings after that |
//! | changes its memory while it is read | what it wrote; memory is only ever accessed as volatile, by [`VolatileSlice`](vm_memory::VolatileSlice) |
//! | looks for another request's data in a buffer that was not written | zeroes |
//! | dies, or is paged out for good | an error after a fifth of a second; what is mapped stays accessible |
//!
//! The library starts no thread, prints nothing, and opens only the device it is asked to open.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use address::GRANT_BIT;
pub use domain_memory::DomainMemory;
pub use domid::DomId;
pub use error::{MapError, MapTarget};
pub use foreign::{ForeignMemory, Holes, Privcmd, RESOURCE_GRANT_TABLE, RESOURCE_IOREQ_SERVER};
pub use grant::{CopySegment, Gntdev, GrantTable};
pub use guard::{Guard, Requests, Rings};
pub use layout::{Layout, LayoutError};
pub use mapping::{Mapping, Prot};
pub use page::PAGE_SIZE;
pub use physical::{NoPhysicalMemory, NoRegion};
pub use pinned::PinnedMemory;
pub use retired::Retired;
pub use stats::Stats;
pub use vm_memory;

mod address;
mod batch;
mod bounce;
mod bounced;
mod budget;
mod chunk;
mod chunk_cache;
mod copies;
mod domain;
mod domain_memory;
mod domid;
mod error;
#[cfg(feature = "test-utils")]
pub mod fake;
mod foreign;
mod free_runs;
mod grant;
mod grant_range;
mod guard;
mod handle;
mod layout;
mod lock;
mod mapping;
mod page;
mod physical;
mod pinned;
mod pins;
mod retired;
mod stats;
mod sys;
mod window;
mod window_cache;
