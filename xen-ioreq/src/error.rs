//! Why a server can't be made or go on.

use std::fmt;
use std::io;

use xen_foreignmem::{DomId, MapError};

use crate::server_id::ServerId;

/// An IOREQ server's failure. Each names the domain, and carries what Xen or the kernel said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Xen refused a device-model operation.
    #[error("domain {domid}: Xen refused to {operation}{}", hint(source, operation))]
    DeviceModel {
        /// The guest.
        domid: DomId,
        /// What was asked.
        operation: Operation,
        /// Its answer.
        source: io::Error,
    },
    /// The page of requests can't be mapped.
    #[error("can't map the requests of IOREQ server {id}")]
    Page {
        /// The server.
        id: ServerId,
        /// Why; it names the domain.
        source: MapError,
    },
    /// The guest has more vCPUs than a page has slots.
    #[error("domain {domid} has {vcpus} vCPUs, more than the 128 an IOREQ server has slots for")]
    TooManyVcpus {
        /// The guest.
        domid: DomId,
        /// How many it has.
        vcpus: u32,
    },
    /// The descriptors handed over are for different guests.
    #[error("device-model operations are for domain {model}, but mappings for domain {memory}")]
    DifferentDomains {
        /// The device model's.
        model: DomId,
        /// The foreign memory's.
        memory: DomId,
    },
    /// A vCPU's event channel can't be bound.
    #[error("domain {domid}: can't bind the event channel {port} of vCPU {vcpu}")]
    Bind {
        /// The guest.
        domid: DomId,
        /// Its vCPU.
        vcpu: u32,
        /// Xen's end of the channel.
        port: u32,
        /// Why.
        source: io::Error,
    },
    /// A vCPU was answered but could not be told.
    #[error("domain {domid}: can't notify vCPU {vcpu}")]
    Notify {
        /// The guest.
        domid: DomId,
        /// Its vCPU.
        vcpu: u32,
        /// Why.
        source: io::Error,
    },
    /// The event-channel descriptor failed.
    #[error("domain {domid}: can't {action} event channels")]
    EventChannel {
        /// The guest.
        domid: DomId,
        /// What was asked of it: `read`, `unmask` or `reset`.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A device-model operation, as [`Error::DeviceModel`] names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// `XEN_DMOP_nr_vcpus`.
    CountVcpus,
    /// `XEN_DMOP_create_ioreq_server`.
    Create,
    /// `XEN_DMOP_map_io_range_to_ioreq_server`, first and last byte.
    MapRange(u64, u64),
    /// `XEN_DMOP_unmap_io_range_from_ioreq_server`, first and last byte.
    UnmapRange(u64, u64),
    /// `XEN_DMOP_set_ioreq_server_state`.
    Enable,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CountVcpus => f.write_str("count its vCPUs"),
            Self::Create => f.write_str("create an IOREQ server"),
            Self::MapRange(start, end) => write!(f, "forward accesses to {start:#x}-{end:#x}"),
            Self::UnmapRange(start, end) => {
                write!(f, "stop forwarding accesses to {start:#x}-{end:#x}")
            }
            Self::Enable => f.write_str("enable the IOREQ server"),
        }
    }
}

/// What an errno means here; Xen's own words for it are of no help.
fn hint(error: &io::Error, operation: &Operation) -> &'static str {
    match (error.raw_os_error(), operation) {
        (Some(libc::ENOSYS | libc::EOPNOTSUPP), _) => {
            " (this Xen is built without CONFIG_IOREQ_SERVER)"
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            " (not privileged over the domain, or the descriptor is restricted to another)"
        }
        (Some(libc::ENOENT), Operation::UnmapRange(..)) => {
            " (it was not forwarded, or the domain is being destroyed)"
        }
        (Some(libc::ENOENT), _) => {
            " (its IOREQ server does not exist: the domain is being destroyed)"
        }
        (Some(libc::ESRCH), _) => " (there is no such domain any more)",
        (Some(libc::ENOSPC), Operation::Create) => {
            " (the domain has all the 8 servers it may have)"
        }
        (Some(libc::EEXIST), Operation::MapRange(..)) => {
            " (the server has a range that overlaps it)"
        }
        (Some(libc::ENOMEM), Operation::MapRange(..)) => {
            " (the server has all the 256 ranges it may have, or Xen has no memory)"
        }
        _ => "",
    }
}
