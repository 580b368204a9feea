//! What a device model may ask of Xen (`XEN_DMOP_*` of `hvm/dm_op.h`).

use std::io;
use std::ops::RangeInclusive;

use xen_foreignmem::DomId;

use crate::server_id::ServerId;

/// What [`DeviceModel::ioreq_server_info`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The event channel of buffered requests; 0 as they are off.
    pub buffered_port: u32,
}

/// Device-model operations on one guest.
///
/// All methods may be called from several threads. Failures are Xen's errno: ENOSYS or EOPNOTSUPP when
/// it is built without CONFIG_IOREQ_SERVER, EPERM without the privilege (or restricted to another domain),
/// ESRCH when there is no such domain, ENOENT for a server that isn't.
///
/// A server belongs to the domain, not to this process: it stays when the process dies. Only the domain
/// that created it may use it.
pub trait DeviceModel: Send + Sync + 'static {
    /// The guest.
    fn domid(&self) -> DomId;

    /// How many vCPUs the guest has been created with (`XEN_DMOP_nr_vcpus`).
    ///
    /// This says nothing of whether the guest lives: a domain that was destroyed is asked with success as
    /// long as any page of it is mapped. [`Liveness`](crate::Liveness) tells.
    ///
    /// # Errors
    ///
    /// Those of every operation.
    fn nr_vcpus(&self) -> io::Result<u32>;

    /// Creates a server without buffered requests (`XEN_DMOP_create_ioreq_server`). The guest
    /// is paused for it.
    ///
    /// # Errors
    ///
    /// ENOSPC: the guest has 8 already.
    fn create_ioreq_server(&self) -> io::Result<ServerId>;

    /// Tells of a server, and so whether it exists (`XEN_DMOP_get_ioreq_server_info` with
    /// `XEN_DMOP_no_gfns`).
    ///
    /// # Errors
    ///
    /// ENOENT: no such server, be it that the guest is being destroyed. EPERM: another domain's.
    fn ioreq_server_info(&self, id: ServerId) -> io::Result<ServerInfo>;

    /// Forwards the guest's accesses to these guest-physical bytes
    /// (`XEN_DMOP_map_io_range_to_ioreq_server`). An access must lie in it whole.
    ///
    /// # Errors
    ///
    /// EEXIST: the server has a range that overlaps it. ENOMEM: it has 256 ranges. EINVAL: an empty range.
    fn map_mmio_range(&self, id: ServerId, range: RangeInclusive<u64>) -> io::Result<()>;

    /// Takes [`map_mmio_range`](Self::map_mmio_range) back
    /// (`XEN_DMOP_unmap_io_range_from_ioreq_server`). Later accesses abort the guest's instruction.
    ///
    /// # Errors
    ///
    /// ENOENT: the server does not have all of these bytes. EINVAL: an empty range.
    fn unmap_mmio_range(&self, id: ServerId, range: RangeInclusive<u64>) -> io::Result<()>;

    /// Enables or disables a server (`XEN_DMOP_set_ioreq_server_state`). The guest is paused for it. Once
    /// enabled, the mapped page holds the event channels of the vCPUs.
    ///
    /// # Errors
    ///
    /// Those of every operation.
    fn set_ioreq_server_state(&self, id: ServerId, enabled: bool) -> io::Result<()>;

    /// Destroys a server and its ranges (`XEN_DMOP_destroy_ioreq_server`). A vCPU that waits for one of its
    /// answers then waits for good.
    ///
    /// # Errors
    ///
    /// ENOENT: no such server.
    fn destroy_ioreq_server(&self, id: ServerId) -> io::Result<()>;

    /// Raises or lowers an interrupt line (`XEN_DMOP_set_irq_level`, Arm). `irq` is a GIC INTID,
    /// 32 and up. Xen's default vGIC takes each `true` for an edge and ignores `false`.
    ///
    /// # Errors
    ///
    /// EINVAL: no SPI of this guest, or one that is passed through.
    fn set_irq_level(&self, irq: u32, level: bool) -> io::Result<()>;
}
