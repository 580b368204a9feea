//! The kernel's ioctl ABI: `include/uapi/xen/privcmd.h` and `include/uapi/xen/gntdev.h` of Linux.
//!
//! The layouts hold on little-endian LP64 targets, the only ones Xen runs Linux on.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("Xen's Arm64 and x86_64 ABIs are little-endian LP64");

/// `IOCTL_PRIVCMD_MMAPBATCH_V2`.
pub(crate) const PRIVCMD_MMAPBATCH_V2: u32 = 0x0020_5004;
/// `IOCTL_PRIVCMD_RESTRICT`.
pub(crate) const PRIVCMD_RESTRICT: u32 = 0x0002_5006;
/// `IOCTL_PRIVCMD_MMAP_RESOURCE`.
pub(crate) const PRIVCMD_MMAP_RESOURCE: u32 = 0x0020_5007;
/// `IOCTL_GNTDEV_MAP_GRANT_REF`.
pub(crate) const GNTDEV_MAP_GRANT_REF: u32 = 0x0018_4700;
/// `IOCTL_GNTDEV_UNMAP_GRANT_REF`.
pub(crate) const GNTDEV_UNMAP_GRANT_REF: u32 = 0x0010_4701;
/// `IOCTL_GNTDEV_GRANT_COPY`.
pub(crate) const GNTDEV_GRANT_COPY: u32 = 0x0010_4708;

/// `GNTCOPY_source_gref`.
pub(crate) const GNTCOPY_SOURCE_GREF: u16 = 1;
/// `GNTCOPY_dest_gref`.
pub(crate) const GNTCOPY_DEST_GREF: u16 = 2;

/// `struct privcmd_mmapbatch_v2`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct MmapBatchV2 {
    pub(crate) num: u32,
    pub(crate) dom: u16,
    pub(crate) addr: u64,
    pub(crate) arr: *const u64,
    pub(crate) err: *mut i32,
}

/// `struct privcmd_mmap_resource`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct MmapResource {
    pub(crate) dom: u16,
    pub(crate) resource_type: u32,
    pub(crate) id: u32,
    pub(crate) idx: u32,
    pub(crate) num: u64,
    pub(crate) addr: u64,
}

/// The words of `struct ioctl_gntdev_map_grant_ref` before `refs`: count (and padding), index.
pub(crate) const MAP_GRANT_REF_HEADER_WORDS: usize = 2;

/// One `struct ioctl_gntdev_grant_ref` as a word: domid in the low half, ref in the high one.
pub(crate) fn grant_ref_word(domid: u16, gref: u32) -> u64 {
    u64::from(domid) | u64::from(gref) << 32
}

/// `struct ioctl_gntdev_unmap_grant_ref`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct UnmapGrantRef {
    pub(crate) index: u64,
    pub(crate) count: u32,
    pub(crate) pad: u32,
}

/// One side of a copy: the kernel's union of a pointer and {ref u32, offset u16, domid u16}.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyEnd(u64);

impl CopyEnd {
    /// A local address.
    pub(crate) fn local(address: *mut u8) -> Self {
        Self(address.expose_provenance() as u64)
    }

    /// A place in a granted page; the domain is filled in by the descriptor that copies.
    pub(crate) fn grant(gref: u32, offset: u16) -> Self {
        Self(u64::from(gref) | u64::from(offset) << 32)
    }

    pub(crate) fn with_domid(self, domid: u16) -> Self {
        Self(self.0 & 0x0000_ffff_ffff_ffff | u64::from(domid) << 48)
    }

    pub(crate) fn gref(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn offset(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[cfg(feature = "test-utils")]
    pub(crate) fn address(self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.0 as usize)
    }
}

/// `struct gntdev_grant_copy_segment`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrantCopySegment {
    pub(crate) source: CopyEnd,
    pub(crate) dest: CopyEnd,
    pub(crate) len: u16,
    pub(crate) flags: u16,
    pub(crate) status: i16,
}

/// `struct ioctl_gntdev_grant_copy`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct GrantCopy {
    pub(crate) count: u32,
    pub(crate) segments: *mut GrantCopySegment,
}

/// Issues one ioctl, again when a signal interrupted it.
///
/// # Safety
///
/// `argument` must be what the kernel expects for `request`: valid for the reads and writes it
/// makes, including through the pointers and addresses inside.
pub(crate) unsafe fn ioctl<T>(
    fd: BorrowedFd<'_>,
    request: u32,
    argument: *mut T,
) -> io::Result<()> {
    loop {
        // SAFETY: the caller vouches for the argument; the descriptor is open while borrowed.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, argument) };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
