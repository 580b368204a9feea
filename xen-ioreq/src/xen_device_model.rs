//! Device-model operations on a running Xen.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use xen_foreignmem::{DomId, ForeignMemory, Privcmd};

use crate::device_model::{DeviceModel, ServerInfo};
use crate::eventfd::EventFds;
use crate::server_id::ServerId;
use crate::sys;

/// Device-model operations through an open `/dev/xen/privcmd`.
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
}
