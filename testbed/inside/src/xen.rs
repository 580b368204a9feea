//! What must be refused of Xen (Linux `include/uapi/xen/`): on each descriptor that the process has, and on one that is
//! opened anew before it is confined, where the argument `fresh` follows.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
};

use crate::{
    Action,
    call::{args, call},
};

const PRIVCMD: &str = "/dev/xen/privcmd";
const EVTCHN: &str = "/dev/xen/evtchn";
const GNTDEV: &str = "/dev/xen/gntdev";

/// `_IOC(_IOC_NONE, kind, number, size)`.
const fn ioc(kind: u8, number: usize, size: usize) -> usize {
    size << 16 | (kind as usize) << 8 | number
}

const PRIVCMD_HYPERCALL: usize = ioc(b'P', 0, 48);
const PRIVCMD_MMAPBATCH_V2: usize = ioc(b'P', 4, 32);
const PRIVCMD_DM_OP: usize = ioc(b'P', 5, 16);
const PRIVCMD_RESTRICT: usize = ioc(b'P', 6, 2);
const PRIVCMD_MMAP_RESOURCE: usize = ioc(b'P', 7, 32);
const EVTCHN_BIND_VIRQ: usize = ioc(b'E', 0, 4);
const EVTCHN_BIND_UNBOUND_PORT: usize = ioc(b'E', 2, 4);
const EVTCHN_RESTRICT_DOMID: usize = ioc(b'E', 6, 2);
const GNTDEV_MAP_GRANT_REF: usize = ioc(b'G', 0, 24);

/// `__HYPERVISOR_xen_version` and its `XENVER_version` (public/xen.h, public/version.h).
const XEN_VERSION: u64 = 17;
/// `XENMEM_resource_ioreq_server` (public/memory.h).
const IOREQ_SERVER: u32 = 0;
/// Where the memory of a guest begins on Arm (`GUEST_RAM0_BASE`, public/arch-arm.h), in pages.
const FIRST_PAGE: u64 = 0x4_0000;
/// Descriptors are looked for below.
const DESCRIPTORS: usize = 256;

/// `ACTION [DOMID] [fresh]`.
pub(crate) fn prepare(action: &str, given: &[&str]) -> Option<io::Result<Action>> {
    let domid = given.first().and_then(|word| word.parse::<u16>().ok()).unwrap_or_default();
    let (device, attempt): (_, fn(usize, u16) -> io::Result<i64>) = match action {
        "hypercall" => (PRIVCMD, hypercall),
        "map-foreign" => (PRIVCMD, map_foreign),
        "map-resource" => (PRIVCMD, map_resource),
        "device-model" => (PRIVCMD, device_model),
        "restrict-privcmd" => (PRIVCMD, restrict_privcmd),
        "bind-virq" => (EVTCHN, bind_virq),
        "bind-unbound" => (EVTCHN, bind_unbound),
        "restrict-evtchn" => (EVTCHN, restrict_evtchn),
        "map-grant" => (GNTDEV, map_grant),
        _ => return None,
    };
    let fresh = given.last() == Some(&"fresh");
    let opened = fresh.then(|| OpenOptions::new().read(true).write(true).open(device)).transpose();
    Some(opened.map(|opened| -> Action {
        Box::new(move || match opened {
            Some(file) => on(&file, domid, attempt),
            None => on_each(domid, attempt),
        })
    }))
}

fn on(file: &File, domid: u16, attempt: fn(usize, u16) -> io::Result<i64>) -> io::Result<String> {
    attempt(file.as_raw_fd() as usize, domid).map(|value| value.to_string())
}

/// The first success, or the last error that isn't of another kind of descriptor.
fn on_each(domid: u16, attempt: fn(usize, u16) -> io::Result<i64>) -> io::Result<String> {
    let mut refused = io::Error::from_raw_os_error(libc::ENOTTY);
    for fd in 3..DESCRIPTORS {
        match attempt(fd, domid) {
            Ok(value) => return Ok(format!("descriptor {fd}: {value}")),
            Err(error) => match error.raw_os_error() {
                Some(libc::EBADF | libc::ENOTTY | libc::ENOSYS | libc::ENODEV) => {}
                _ => refused = error,
            },
        }
    }
    Err(refused)
}

fn ioctl<T>(fd: usize, request: usize, argument: &mut T) -> io::Result<i64> {
    call(libc::SYS_ioctl, args([fd, request, (&raw mut *argument) as usize]))
}

/// A page of the descriptor, which is never unmapped.
fn page(fd: usize, offset: usize) -> io::Result<u64> {
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let address =
        call(libc::SYS_mmap, [0, 4096, protection, libc::MAP_SHARED as usize, fd, offset])?;
    Ok(address as u64)
}

fn hypercall(fd: usize, _: u16) -> io::Result<i64> {
    ioctl(fd, PRIVCMD_HYPERCALL, &mut [XEN_VERSION, 0, 0, 0, 0, 0])
}

fn map_foreign(fd: usize, domid: u16) -> io::Result<i64> {
    #[repr(C)]
    struct Batch {
        count: u32,
        domid: u16,
        address: u64,
        pages: *const u64,
        errors: *mut i32,
    }
    let (pages, mut error) = ([FIRST_PAGE], 0);
    let (address, errors) = (page(fd, 0)?, &raw mut error);
    let mut batch = Batch { count: 1, domid, address, pages: pages.as_ptr(), errors };
    let result = ioctl(fd, PRIVCMD_MMAPBATCH_V2, &mut batch)?;
    if error == 0 { Ok(result) } else { Err(io::Error::from_raw_os_error(-error)) }
}

fn map_resource(fd: usize, domid: u16) -> io::Result<i64> {
    #[repr(C)]
    struct Resource {
        domid: u16,
        kind: u32,
        id: u32,
        index: u32,
        count: u64,
        address: u64,
    }
    let address = page(fd, 0)?;
    // Of the first server, the page that has the requests.
    let mut resource = Resource { domid, kind: IOREQ_SERVER, id: 0, index: 1, count: 1, address };
    ioctl(fd, PRIVCMD_MMAP_RESOURCE, &mut resource)
}

fn device_model(fd: usize, domid: u16) -> io::Result<i64> {
    #[repr(C)]
    struct Operation {
        domid: u16,
        count: u16,
        buffers: *const Buffer,
    }
    #[repr(C)]
    struct Buffer {
        address: *mut u64,
        size: usize,
    }
    // `XEN_DMOP_nr_vcpus` (public/hvm/dm_op.h) and where its answer goes.
    let mut operation = [20_u64, 0];
    let buffer = Buffer { address: operation.as_mut_ptr(), size: size_of_val(&operation) };
    ioctl(fd, PRIVCMD_DM_OP, &mut Operation { domid, count: 1, buffers: &raw const buffer })
}

fn restrict_privcmd(fd: usize, domid: u16) -> io::Result<i64> {
    ioctl(fd, PRIVCMD_RESTRICT, &mut domid.clone())
}

/// `VIRQ_CON_RING`, which nobody else uses (public/xen.h).
fn bind_virq(fd: usize, _: u16) -> io::Result<i64> {
    ioctl(fd, EVTCHN_BIND_VIRQ, &mut 8_u32)
}

fn bind_unbound(fd: usize, domid: u16) -> io::Result<i64> {
    ioctl(fd, EVTCHN_BIND_UNBOUND_PORT, &mut u32::from(domid))
}

fn restrict_evtchn(fd: usize, domid: u16) -> io::Result<i64> {
    ioctl(fd, EVTCHN_RESTRICT_DOMID, &mut domid.clone())
}

/// The page that the guest shares with xenstored, `GNTTAB_RESERVED_XENSTORE` (public/grant_table.h).
fn map_grant(fd: usize, domid: u16) -> io::Result<i64> {
    #[repr(C)]
    struct Grant {
        count: u32,
        index: u64,
        domid: u32,
        reference: u32,
    }
    let mut grant = Grant { count: 1, index: 0, domid: domid.into(), reference: 1 };
    ioctl(fd, GNTDEV_MAP_GRANT_REF, &mut grant)?;
    page(fd, grant.index as usize).map(|address| address as i64)
}
