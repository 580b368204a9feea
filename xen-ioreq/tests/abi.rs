//! The layouts and numbers against Xen's and Linux's headers, through the C compiler.
//!
//! `IOCTL_PRIVCMD_IRQFD` (Linux 6.6) is checked against the header where it has it, else against the documented layout.
#![cfg(not(miri))]

use std::io::Write;
use std::mem::{offset_of, size_of};
use std::process::{Command, Stdio};

#[allow(dead_code)]
#[path = "../src/sys.rs"]
mod sys;

const PRELUDE: &str = r#"
#define __XEN_TOOLS__ 1
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <xen/xen.h>
#include <xen/memory.h>
#include <xen/hvm/dm_op.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/ioreq.h>
#include <linux/types.h>
#include <xen/sys/privcmd.h>
#ifndef IOCTL_PRIVCMD_IRQFD
struct privcmd_irqfd {
    __u64 dm_op; __u32 size; __u32 fd; __u32 flags; domid_t dom; __u8 pad[2];
};
#define PRIVCMD_IRQFD_FLAG_DEASSIGN (1 << 0)
#define IOCTL_PRIVCMD_IRQFD _IOW('P', 8, struct privcmd_irqfd)
#endif
/* The flags byte of an ioreq in which only one bit-field is set. */
#define FLAGS(field, value) ({ ioreq_t r; memset(&r, 0, sizeof r); r.field = (value); ((uint8_t *)&r)[30]; })
int main(void) {
"#;

/// Compares each C expression with our value.
fn check(checks: &[(&str, u64)]) {
    let mut program = String::from(PRELUDE);
    for (expression, _) in checks {
        program += &format!("printf(\"%llu\\n\", (unsigned long long)({expression}));\n");
    }
    program += "return 0;\n}\n";
    let name = format!("xen-ioreq-abi-{}-{:p}", std::process::id(), checks);
    let binary = std::env::temp_dir().join(name);
    let mut cc = Command::new("cc")
        .args(["-x", "c", "-", "-o"])
        .arg(&binary)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler (Debian: gcc libc6-dev)");
    cc.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    assert!(
        cc.wait().unwrap().success(),
        "cc found no usable headers of Xen and Linux (Debian: libxen-dev linux-libc-dev)"
    );
    let output = Command::new(&binary).output().unwrap();
    std::fs::remove_file(&binary).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(theirs.len(), checks.len());
    for ((expression, ours), theirs) in checks.iter().zip(theirs) {
        assert_eq!(*ours, theirs, "{expression}");
    }
}

/// Size and offsets of a structure: of C's first, then ours.
macro_rules! layout {
    ($c:literal, $ours:ty, {$($c_field:literal: $field:ident),* $(,)?}) => {
        check(&[
            (concat!("sizeof(", $c, ")"), size_of::<$ours>() as u64),
            $((
                concat!("offsetof(", $c, ", ", $c_field, ")"),
                offset_of!($ours, $field) as u64,
            ),)*
            $((
                concat!("sizeof(((", $c, " *)0)->", $c_field, ")"),
                field_size(|value: &$ours| size_of_val(&value.$field)) as u64,
            ),)*
        ])
    };
}

fn field_size<T>(size: impl FnOnce(&T) -> usize) -> usize {
    let value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: every structure here is made of integers, atomics and raw pointers: all zeroes are valid.
    size(unsafe { value.assume_init_ref() })
}

#[test]
fn an_ioreq_is_xens() {
    layout!("ioreq_t", sys::Ioreq, {
        "addr": addr, "data": data, "count": count, "size": size, "vp_eport": vp_eport,
        "_pad0": pad, "type": kind,
    });
    check(&[
        ("FLAGS(state, 0xf)", sys::STATE_MASK.into()),
        ("FLAGS(data_is_ptr, 1)", sys::FLAG_DATA_IS_PTR.into()),
        ("FLAGS(dir, IOREQ_READ)", sys::FLAG_READ.into()),
        ("STATE_IOREQ_NONE", sys::STATE_IOREQ_NONE.into()),
        ("STATE_IOREQ_READY", sys::STATE_IOREQ_READY.into()),
        ("STATE_IOREQ_INPROCESS", sys::STATE_IOREQ_INPROCESS.into()),
        ("STATE_IORESP_READY", sys::STATE_IORESP_READY.into()),
        ("IOREQ_TYPE_COPY", sys::IOREQ_TYPE_COPY.into()),
        ("IOREQ_TYPE_INVALIDATE", sys::IOREQ_TYPE_INVALIDATE.into()),
        ("XENMEM_resource_ioreq_server_frame_ioreq(0)", sys::FRAME_IOREQ.into()),
        ("XENMEM_resource_ioreq_server", xen_foreignmem::RESOURCE_IOREQ_SERVER.into()),
    ]);
    assert_eq!(offset_of!(sys::Ioreq, state), 30);
}

#[test]
fn device_model_operations_are_xens() {
    check(&[
        ("XEN_DMOP_create_ioreq_server", sys::CREATE_IOREQ_SERVER.into()),
        ("XEN_DMOP_get_ioreq_server_info", sys::GET_IOREQ_SERVER_INFO.into()),
        ("XEN_DMOP_map_io_range_to_ioreq_server", sys::MAP_IO_RANGE.into()),
        ("XEN_DMOP_unmap_io_range_from_ioreq_server", sys::UNMAP_IO_RANGE.into()),
        ("XEN_DMOP_set_ioreq_server_state", sys::SET_IOREQ_SERVER_STATE.into()),
        ("XEN_DMOP_destroy_ioreq_server", sys::DESTROY_IOREQ_SERVER.into()),
        ("XEN_DMOP_set_irq_level", sys::SET_IRQ_LEVEL.into()),
        ("XEN_DMOP_nr_vcpus", sys::NR_VCPUS.into()),
        ("HVM_IOREQSRV_BUFIOREQ_OFF", sys::BUFIOREQ_OFF.into()),
        ("XEN_DMOP_no_gfns", sys::NO_GFNS.into()),
        ("XEN_DMOP_IO_RANGE_MEMORY", sys::IO_RANGE_MEMORY.into()),
    ]);
    layout!("struct xen_dm_op_create_ioreq_server", sys::CreateIoreqServer, {
        "handle_bufioreq": handle_bufioreq, "pad": pad, "id": id,
    });
    layout!("struct xen_dm_op_get_ioreq_server_info", sys::GetIoreqServerInfo, {
        "id": id, "flags": flags, "bufioreq_port": bufioreq_port, "ioreq_gfn": ioreq_gfn,
        "bufioreq_gfn": bufioreq_gfn,
    });
    layout!("struct xen_dm_op_ioreq_server_range", sys::IoreqServerRange, {
        "id": id, "pad": pad, "type": range_type, "start": start, "end": end,
    });
    layout!("struct xen_dm_op_set_ioreq_server_state", sys::SetIoreqServerState, {
        "id": id, "enabled": enabled, "pad": pad,
    });
    layout!("struct xen_dm_op_destroy_ioreq_server", sys::DestroyIoreqServer, {
        "id": id, "pad": pad,
    });
    layout!("struct xen_dm_op_set_irq_level", sys::SetIrqLevel, {
        "irq": irq, "level": level, "pad": pad,
    });
    layout!("struct xen_dm_op_nr_vcpus", sys::NrVcpus, { "vcpus": vcpus });
}

/// Xen takes a buffer that holds the header and the operation's own structure, and no more than that.
#[test]
fn an_operation_follows_the_header() {
    layout!("struct xen_dm_op", sys::DmOp<sys::IoreqServerRange>, {
        "op": op, "pad": pad, "u.map_io_range_to_ioreq_server": arg,
    });
    check(&[
        (
            "offsetof(struct xen_dm_op, u)",
            offset_of!(sys::DmOp<sys::CreateIoreqServer>, arg) as u64,
        ),
        (
            "offsetof(struct xen_dm_op, u)",
            offset_of!(sys::DmOp<sys::GetIoreqServerInfo>, arg) as u64,
        ),
        (
            "offsetof(struct xen_dm_op, u)",
            offset_of!(sys::DmOp<sys::SetIoreqServerState>, arg) as u64,
        ),
        (
            "offsetof(struct xen_dm_op, u)",
            offset_of!(sys::DmOp<sys::DestroyIoreqServer>, arg) as u64,
        ),
        ("offsetof(struct xen_dm_op, u)", offset_of!(sys::DmOp<sys::SetIrqLevel>, arg) as u64),
        ("offsetof(struct xen_dm_op, u)", offset_of!(sys::DmOp<sys::NrVcpus>, arg) as u64),
    ]);
}

#[test]
fn ioctls_are_linuxs() {
    check(&[
        ("IOCTL_PRIVCMD_DM_OP", sys::PRIVCMD_DM_OP.into()),
        ("IOCTL_PRIVCMD_IRQFD", sys::PRIVCMD_IRQFD.into()),
        ("PRIVCMD_IRQFD_FLAG_DEASSIGN", sys::FLAG_DEASSIGN.into()),
    ]);
    layout!("struct privcmd_dm_op_buf", sys::PrivcmdDmOpBuf, { "uptr": uptr, "size": size });
    layout!("struct privcmd_dm_op", sys::PrivcmdDmOp, {
        "dom": dom, "num": num, "ubufs": ubufs,
    });
    layout!("struct privcmd_irqfd", sys::PrivcmdIrqfd, {
        "dm_op": dm_op, "size": size, "fd": fd, "flags": flags, "dom": dom, "pad": pad,
    });
}
