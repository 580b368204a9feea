//! The seam: what a device model may ask of Xen (`XEN_DMOP_*` of `hvm/dm_op.h`).

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use xen_foreignmem::{ForeignMemory, Privcmd};

use crate::eventfd::{EventFds, Kick};
use crate::sys;
use crate::{DomId, ServerId};

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

/// The real thing: operations through an open `/dev/xen/privcmd`.
#[derive(Clone, Debug)]
pub struct XenDeviceModel {
    privcmd: Arc<Privcmd>,
}

impl XenDeviceModel {
    /// Operations on the guest the descriptor is for. It may be shared with the mappings, and restricted.
    pub fn new(privcmd: Arc<Privcmd>) -> Self {
        Self { privcmd }
    }

    fn dm_op<T: Copy>(&self, op: u32, arg: T) -> io::Result<T> {
        let mut op = sys::DmOp::new(op, arg);
        let buf =
            sys::PrivcmdDmOpBuf { uptr: (&raw mut op).cast(), size: size_of::<sys::DmOp<T>>() };
        let mut call = sys::PrivcmdDmOp { dom: self.domid(), num: 1, ubufs: &raw const buf };
        // SAFETY: `ubufs` is one buffer, which names all of `op`; both outlive the call. Xen writes only
        // integers into it, where every bit pattern is valid.
        unsafe { ioctl(self.privcmd.as_fd(), sys::PRIVCMD_DM_OP, &mut call) }?;
        Ok(op.arg)
    }
}

/// # Safety
///
/// `argument` is the structure that `request` takes, and every address in it is valid for what the request
/// does with it.
unsafe fn ioctl<T>(fd: BorrowedFd<'_>, request: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: the caller answers for the argument.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, &raw mut *argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mmio(id: ServerId, range: &RangeInclusive<u64>) -> sys::IoreqServerRange {
    sys::IoreqServerRange {
        id,
        range_type: sys::IO_RANGE_MEMORY,
        start: *range.start(),
        end: *range.end(),
        ..Default::default()
    }
}

impl DeviceModel for XenDeviceModel {
    fn domid(&self) -> DomId {
        self.privcmd.domid()
    }

    fn nr_vcpus(&self) -> io::Result<u32> {
        Ok(self.dm_op(sys::NR_VCPUS, sys::NrVcpus::default())?.vcpus)
    }

    fn create_ioreq_server(&self) -> io::Result<ServerId> {
        let create =
            sys::CreateIoreqServer { handle_bufioreq: sys::BUFIOREQ_OFF, ..Default::default() };
        Ok(self.dm_op(sys::CREATE_IOREQ_SERVER, create)?.id)
    }

    fn ioreq_server_info(&self, id: ServerId) -> io::Result<ServerInfo> {
        let info = sys::GetIoreqServerInfo { id, flags: sys::NO_GFNS, ..Default::default() };
        let info = self.dm_op(sys::GET_IOREQ_SERVER_INFO, info)?;
        Ok(ServerInfo { buffered_port: info.bufioreq_port })
    }

    fn map_mmio_range(&self, id: ServerId, range: RangeInclusive<u64>) -> io::Result<()> {
        self.dm_op(sys::MAP_IO_RANGE, mmio(id, &range)).map(drop)
    }

    fn unmap_mmio_range(&self, id: ServerId, range: RangeInclusive<u64>) -> io::Result<()> {
        self.dm_op(sys::UNMAP_IO_RANGE, mmio(id, &range)).map(drop)
    }

    fn set_ioreq_server_state(&self, id: ServerId, enabled: bool) -> io::Result<()> {
        let state = sys::SetIoreqServerState { id, enabled: enabled.into(), ..Default::default() };
        self.dm_op(sys::SET_IOREQ_SERVER_STATE, state).map(drop)
    }

    fn destroy_ioreq_server(&self, id: ServerId) -> io::Result<()> {
        let destroy = sys::DestroyIoreqServer { id, ..Default::default() };
        self.dm_op(sys::DESTROY_IOREQ_SERVER, destroy).map(drop)
    }

    fn set_irq_level(&self, irq: u32, level: bool) -> io::Result<()> {
        let level = sys::SetIrqLevel { irq, level: level.into(), ..Default::default() };
        self.dm_op(sys::SET_IRQ_LEVEL, level).map(drop)
    }
}

/// `DEASSIGN`, or nothing.
fn flags(assign: bool) -> u32 {
    if assign { 0 } else { sys::FLAG_DEASSIGN }
}

impl EventFds for XenDeviceModel {
    fn irqfd(&self, irq: u32, eventfd: BorrowedFd<'_>, assign: bool) -> io::Result<()> {
        let level = sys::SetIrqLevel { irq, level: 1, ..Default::default() };
        let op = sys::DmOp::new(sys::SET_IRQ_LEVEL, level);
        let mut call = sys::PrivcmdIrqfd {
            dm_op: (&raw const op) as u64,
            size: size_of_val(&op) as u32,
            fd: eventfd.as_raw_fd() as u32,
            flags: flags(assign),
            dom: self.domid(),
            pad: [0; 2],
        };
        // SAFETY: `dm_op` names `size` readable bytes, which the kernel copies.
        unsafe { ioctl(self.privcmd.as_fd(), sys::PRIVCMD_IRQFD, &mut call) }
    }

    unsafe fn ioeventfd(
        &self,
        kick: &Kick<'_>,
        eventfd: BorrowedFd<'_>,
        assign: bool,
    ) -> io::Result<()> {
        let mut call = sys::PrivcmdIoeventfd {
            ioreq: kick.page,
            ports: kick.ports.as_ptr() as u64,
            addr: kick.base,
            addr_len: kick.size,
            event_fd: eventfd.as_raw_fd() as u32,
            vcpus: kick.ports.len() as u32,
            vq: kick.queue,
            flags: flags(assign),
            dom: self.domid(),
            pad: [0; 2],
        };
        // SAFETY: `ports` names `vcpus` readable numbers, which the kernel copies; the caller answers for the
        // page of requests, which it keeps.
        unsafe { ioctl(self.privcmd.as_fd(), sys::PRIVCMD_IOEVENTFD, &mut call) }
    }
}
