//! Why a mapping failed.

use std::fmt;
use std::io;

use crate::domid::DomId;
use crate::layout::Layout;
use crate::page::PAGE_SIZE;

/// The guest's memory could not be mapped. Nothing stays mapped.
#[derive(Debug, thiserror::Error)]
#[error("domain {domid}: can't map {target}")]
#[non_exhaustive]
pub struct MapError {
    /// The guest.
    pub domid: DomId,
    /// The first thing that could not be mapped.
    pub target: MapTarget,
    /// The kernel's or Xen's answer.
    pub source: io::Error,
}

/// [`Layout::budget`] is in use.
#[derive(Debug, thiserror::Error)]
#[error("all {0} bytes that may be mapped of its memory are in use by requests in flight")]
struct OverBudget(u64);

/// What [`MapError`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapTarget {
    /// A guest frame number: the first bad one, or the first of the batch if the call itself failed.
    Gfn(u64),
    /// A grant reference: the first of the range, as the kernel does not say which one was refused.
    Gref(u32),
    /// Frames of a resource of `XENMEM_acquire_resource`.
    Resource {
        /// `XENMEM_resource_*`.
        resource_type: u32,
        /// Which one of that type.
        id: u32,
        /// The first frame.
        frame: u32,
    },
}

impl fmt::Display for MapTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gfn(gfn) => write!(f, "guest frame {gfn:#x}"),
            Self::Gref(gref) => write!(f, "grant {gref}"),
            Self::Resource { resource_type, id, frame } => {
                write!(f, "resource type {resource_type} id {id} frame {frame}")
            }
        }
    }
}

impl MapError {
    /// An error of `target`'s mapping, for other implementations of the traits.
    pub fn new(domid: DomId, target: MapTarget, source: io::Error) -> Self {
        Self { domid, target, source }
    }

    /// The errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// The frame of an address can't be mapped.
    pub(crate) fn of_gfn(domid: DomId, addr: u64, errno: i32) -> Self {
        let gfn = MapTarget::Gfn(addr / PAGE_SIZE as u64);
        Self::new(domid, gfn, io::Error::from_raw_os_error(errno))
    }

    /// There is no RAM at an address.
    pub(crate) fn invalid(domid: DomId, addr: u64) -> Self {
        Self::of_gfn(domid, addr, libc::EINVAL)
    }

    /// All of the budget is in use.
    pub(crate) fn over_budget(domid: DomId, addr: u64, layout: &Layout) -> Self {
        let used = OverBudget(layout.budget_bytes().unwrap_or(u64::MAX));
        let source = io::Error::new(io::ErrorKind::OutOfMemory, used);
        Self::new(domid, MapTarget::Gfn(addr / PAGE_SIZE as u64), source)
    }
}
