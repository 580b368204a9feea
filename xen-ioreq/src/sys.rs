//! The ABI: `hvm/ioreq.h` and `hvm/dm_op.h` of Xen's public headers, `include/uapi/xen/privcmd.h` of Linux.
//!
//! The layouts hold on little-endian LP64 targets, the only ones Xen runs Linux on.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("Xen's Arm64 and x86_64 ABIs are little-endian LP64");

/// `struct ioreq`: one vCPU's slot in the page Xen shares with us.
///
/// Xen and this process change it at the same time, so every field is atomic.
#[repr(C)]
pub(crate) struct Ioreq {
    pub(crate) addr: AtomicU64,
    pub(crate) data: AtomicU64,
    pub(crate) count: AtomicU32,
    pub(crate) size: AtomicU32,
    pub(crate) vp_eport: AtomicU32,
    pub(crate) pad: AtomicU16,
    /// `state:4`, then the flag bits.
    pub(crate) state: AtomicU8,
    pub(crate) kind: AtomicU8,
}

/// The bits of [`Ioreq::state`] that are the state.
pub(crate) const STATE_MASK: u8 = 0xf;
/// `STATE_IOREQ_NONE`.
pub(crate) const STATE_IOREQ_NONE: u8 = 0;
/// `STATE_IOREQ_READY`.
pub(crate) const STATE_IOREQ_READY: u8 = 1;
/// `STATE_IOREQ_INPROCESS`.
pub(crate) const STATE_IOREQ_INPROCESS: u8 = 2;
/// `STATE_IORESP_READY`.
pub(crate) const STATE_IORESP_READY: u8 = 3;
/// `data_is_ptr:1`: the data is elsewhere, in guest memory.
pub(crate) const FLAG_DATA_IS_PTR: u8 = 1 << 4;
/// `dir:1` is `IOREQ_READ`.
pub(crate) const FLAG_READ: u8 = 1 << 5;

/// `IOREQ_TYPE_COPY`: a memory-mapped access.
pub(crate) const IOREQ_TYPE_COPY: u8 = 1;
/// `IOREQ_TYPE_INVALIDATE`.
pub(crate) const IOREQ_TYPE_INVALIDATE: u8 = 8;

/// `XENMEM_resource_ioreq_server_frame_ioreq(0)`: the frame of an IOREQ server that holds the slots.
pub(crate) const FRAME_IOREQ: u32 = 1;
/// `MAX_NR_IOREQ_SERVERS` of `xen/include/xen/sched.h`.
#[cfg(feature = "test-utils")]
pub(crate) const MAX_SERVERS: usize = 8;
/// `MAX_NR_IO_RANGES` of `xen/common/ioreq.c`, for each server and type.
#[cfg(feature = "test-utils")]
pub(crate) const MAX_RANGES: usize = 256;

/// `XEN_DMOP_create_ioreq_server`.
pub(crate) const CREATE_IOREQ_SERVER: u32 = 1;
/// `XEN_DMOP_get_ioreq_server_info`.
pub(crate) const GET_IOREQ_SERVER_INFO: u32 = 2;
/// `XEN_DMOP_map_io_range_to_ioreq_server`.
pub(crate) const MAP_IO_RANGE: u32 = 3;
/// `XEN_DMOP_unmap_io_range_from_ioreq_server`.
pub(crate) const UNMAP_IO_RANGE: u32 = 4;
/// `XEN_DMOP_set_ioreq_server_state`.
pub(crate) const SET_IOREQ_SERVER_STATE: u32 = 5;
/// `XEN_DMOP_destroy_ioreq_server`.
pub(crate) const DESTROY_IOREQ_SERVER: u32 = 6;
/// `XEN_DMOP_set_irq_level`.
pub(crate) const SET_IRQ_LEVEL: u32 = 19;
/// `XEN_DMOP_nr_vcpus`.
pub(crate) const NR_VCPUS: u32 = 20;

/// `HVM_IOREQSRV_BUFIOREQ_OFF`; Arm knows no other.
pub(crate) const BUFIOREQ_OFF: u8 = 0;
/// `XEN_DMOP_no_gfns`.
pub(crate) const NO_GFNS: u16 = 1;
/// `XEN_DMOP_IO_RANGE_MEMORY`.
pub(crate) const IO_RANGE_MEMORY: u32 = 1;

/// `struct xen_dm_op` with one member of its union.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct DmOp<T> {
    pub(crate) op: u32,
    pub(crate) pad: u32,
    pub(crate) arg: T,
}

impl<T> DmOp<T> {
    pub(crate) fn new(op: u32, arg: T) -> Self {
        Self { op, pad: 0, arg }
    }
}

/// `struct xen_dm_op_create_ioreq_server`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CreateIoreqServer {
    pub(crate) handle_bufioreq: u8,
    pub(crate) pad: [u8; 3],
    pub(crate) id: u16,
}

/// `struct xen_dm_op_get_ioreq_server_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GetIoreqServerInfo {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) bufioreq_port: u32,
    pub(crate) ioreq_gfn: u64,
    pub(crate) bufioreq_gfn: u64,
}

/// `struct xen_dm_op_ioreq_server_range`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IoreqServerRange {
    pub(crate) id: u16,
    pub(crate) pad: u16,
    pub(crate) range_type: u32,
    pub(crate) start: u64,
    /// Inclusive.
    pub(crate) end: u64,
}

/// `struct xen_dm_op_set_ioreq_server_state`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SetIoreqServerState {
    pub(crate) id: u16,
    pub(crate) enabled: u8,
    pub(crate) pad: u8,
}

/// `struct xen_dm_op_destroy_ioreq_server`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DestroyIoreqServer {
    pub(crate) id: u16,
    pub(crate) pad: u16,
}

/// `struct xen_dm_op_set_irq_level`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SetIrqLevel {
    pub(crate) irq: u32,
    pub(crate) level: u8,
    pub(crate) pad: [u8; 3],
}

/// `struct xen_dm_op_nr_vcpus`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NrVcpus {
    pub(crate) vcpus: u32,
}

/// `IOCTL_PRIVCMD_DM_OP`.
pub(crate) const PRIVCMD_DM_OP: u32 = 0x0010_5005;
/// `IOCTL_PRIVCMD_IRQFD`, Linux 6.6.
pub(crate) const PRIVCMD_IRQFD: u32 = 0x4018_5008;
/// `PRIVCMD_IRQFD_FLAG_DEASSIGN`.
pub(crate) const FLAG_DEASSIGN: u32 = 1;

/// `struct privcmd_dm_op_buf`.
#[repr(C)]
pub(crate) struct PrivcmdDmOpBuf {
    pub(crate) uptr: *mut core::ffi::c_void,
    pub(crate) size: usize,
}

/// `struct privcmd_dm_op`.
#[repr(C)]
pub(crate) struct PrivcmdDmOp {
    pub(crate) dom: u16,
    pub(crate) num: u16,
    pub(crate) ubufs: *const PrivcmdDmOpBuf,
}

/// `struct privcmd_irqfd`.
#[repr(C)]
pub(crate) struct PrivcmdIrqfd {
    pub(crate) dm_op: u64,
    pub(crate) size: u32,
    pub(crate) fd: u32,
    pub(crate) flags: u32,
    pub(crate) dom: u16,
    pub(crate) pad: [u8; 2],
}
