//! Allowed requests of ioctl(2): those of Xen's devices (Linux `include/uapi/xen/privcmd.h`,
//! `gntdev.h`, `evtchn.h`) and of images. A filter compares them in this order, so the most frequent
//! ones are first.

use crate::Access;

const PRIVCMD_DM_OP: u32 = 0x0010_5005;
const PRIVCMD_MMAPBATCH_V2: u32 = 0x0020_5004;
const PRIVCMD_MMAP_RESOURCE: u32 = 0x0020_5007;
const PRIVCMD_IRQFD: u32 = 0x4018_5008;

const GNTDEV_MAP_GRANT_REF: u32 = 0x0018_4700;
const GNTDEV_UNMAP_GRANT_REF: u32 = 0x0010_4701;
const GNTDEV_GRANT_COPY: u32 = 0x0010_4708;

const EVTCHN_BIND_INTERDOMAIN: u32 = 0x0008_4501;
const EVTCHN_UNBIND: u32 = 0x0004_4503;
const EVTCHN_NOTIFY: u32 = 0x0004_4504;
const EVTCHN_RESET: u32 = 0x0000_4505;

/// `_IO(0x12, nr)` (linux/fs.h).
const fn blk(nr: u32) -> u32 {
    0x12 << 8 | nr
}

/// Block devices: `BLKROGET`, `BLKSSZGET`, `BLKDISCARD`, `BLKIOMIN`, `BLKIOOPT`, `BLKALIGNOFF`,
/// `BLKPBSZGET`, `BLKSECDISCARD`, `BLKZEROOUT` and `BLKGETSIZE64`.
const BLOCK: [u32; 10] = [
    blk(94),
    blk(104),
    blk(119),
    blk(120),
    blk(121),
    blk(122),
    blk(123),
    blk(125),
    blk(127),
    0x8008_1272,
];

/// Any descriptor: `FIONBIO`, and those by which isatty(3) is implemented, `TCGETS` in glibc and
/// `TIOCGWINSZ` in musl.
const ANY: [u32; 3] = [0x5421, 0x5401, 0x5413];

/// For queue threads: interrupts, guest memory, the image.
pub(super) fn queue(access: Access) -> Vec<u32> {
    let mut requests = vec![PRIVCMD_DM_OP];
    if access.foreign_memory {
        requests.push(PRIVCMD_MMAPBATCH_V2);
    }
    if access.grants {
        requests.extend([GNTDEV_GRANT_COPY, GNTDEV_MAP_GRANT_REF, GNTDEV_UNMAP_GRANT_REF]);
    }
    requests.extend(BLOCK);
    requests.extend(ANY);
    requests
}

/// Additionally for the main thread: the ioreq page and event channels.
pub(super) fn guest(access: Access) -> Vec<u32> {
    let mut requests = vec![EVTCHN_NOTIFY, EVTCHN_BIND_INTERDOMAIN, EVTCHN_UNBIND, EVTCHN_RESET];
    requests.push(PRIVCMD_MMAP_RESOURCE);
    if access.irqfd {
        requests.push(PRIVCMD_IRQFD);
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_block_devices_are_the_c_librarys() {
        let known = [
            (0, 0x125e),
            (1, libc::BLKSSZGET as u32),
            (6, libc::BLKPBSZGET as u32),
            (3, libc::BLKIOMIN as u32),
            (4, libc::BLKIOOPT as u32),
        ];
        for (index, number) in known {
            assert_eq!(BLOCK[index], number);
        }
        let any = [libc::FIONBIO as u32, libc::TCGETS as u32, libc::TIOCGWINSZ as u32];
        assert_eq!(ANY, any);
    }

    #[test]
    fn a_guest_that_grants_its_memory_needs_no_ioctl_that_maps_any_other() {
        let all = |access| [queue(access), guest(access)].concat();
        let mapped = |access| {
            let requests = all(access);
            [PRIVCMD_MMAPBATCH_V2, GNTDEV_MAP_GRANT_REF, GNTDEV_GRANT_COPY, PRIVCMD_IRQFD]
                .map(|request| requests.contains(&request))
        };
        assert_eq!(mapped(Access::GRANTS), [false, true, true, false]);
        assert_eq!(mapped(Access::FOREIGN_MEMORY), [true, false, false, false]);
        assert_eq!(mapped(Access::FOREIGN_MEMORY.with_irqfd()), [true, false, false, true]);
        assert_eq!(mapped(Access::ALL), [true; 4]);
    }

    #[test]
    fn no_ioctl_reaches_another_domain_by_a_hypercall_of_its_own() {
        // IOCTL_PRIVCMD_HYPERCALL, IOCTL_PRIVCMD_MMAP and _MMAPBATCH, IOCTL_EVTCHN_BIND_VIRQ,
        // _BIND_UNBOUND_PORT, IOCTL_GNTDEV_SET_UNMAP_NOTIFY, and the dma-buf ones; nor does one leave the kernel a
        // pointer (IOCTL_PRIVCMD_IOEVENTFD).
        let hypercall = 0x0030_5000;
        let others = [0x0010_5002, 0x0020_5003, 0x0004_4500, 0x0004_4502, 0x0010_4707, 0x4030_5009];
        let requests = [queue(Access::ALL), guest(Access::ALL)].concat();
        assert!(!requests.contains(&hypercall));
        assert!(others.iter().all(|other| !requests.contains(other)));
        assert!(requests.iter().all(|request| request >> 8 & 0xff != 0x47 || request & 0xff < 9));
    }
}
