//! Foreign mappings: a guest's frames, and Xen's resources, by privilege.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use memmap2::{MmapOptions, MmapRaw};

use crate::batch::{Batch, map_frames};
use crate::domid::DomId;
use crate::error::{MapError, MapTarget};
use crate::mapping::{Mapping, Prot};
use crate::page::PAGE_SIZE;
use crate::sys;

/// `XENMEM_resource_ioreq_server` of `xen/include/public/memory.h`: the pages of an IOREQ server.
pub const RESOURCE_IOREQ_SERVER: u32 = 0;
/// `XENMEM_resource_grant_table` of `xen/include/public/memory.h`.
pub const RESOURCE_GRANT_TABLE: u32 = 1;

/// Which frames of a sparse mapping are holes: index into the frames asked for, and errno.
pub type Holes = Vec<(usize, i32)>;

/// One descriptor of `/dev/xen/privcmd`, used for one guest.
pub trait ForeignMemory: Send + Sync + 'static {
    /// The guest.
    fn domid(&self) -> DomId;

    /// Maps guest frames one after the other, all or nothing.
    ///
    /// Waits for frames that Xen is paging in, for at most 200 ms.
    ///
    /// # Errors
    ///
    /// The first frame that could not be mapped: EINVAL or ENOENT where the guest has none, ESRCH
    /// when there is no such guest, EPERM without the privilege. EINVAL for no frames at all.
    fn map(&self, prot: Prot, gfns: &[u64]) -> Result<Mapping, MapError> {
        let (mapping, holes) = self.map_sparse(prot, gfns)?;
        match holes.first() {
            None => Ok(mapping),
            Some(&(index, errno)) => Err(MapError::new(
                self.domid(),
                MapTarget::Gfn(gfns.get(index).copied().unwrap_or_default()),
                io::Error::from_raw_os_error(errno),
            )),
        }
    }

    /// As [`map`](Self::map), but frames that could not be mapped stay holes, in ascending order.
    ///
    /// # Errors
    ///
    /// The call itself failed.
    fn map_sparse(&self, prot: Prot, gfns: &[u64]) -> Result<(Mapping, Holes), MapError>;

    /// Maps `frames` frames of a resource, for loads and stores (`XENMEM_acquire_resource`).
    ///
    /// # Errors
    ///
    /// ENOENT where there is no such resource, ESRCH when there is no such guest, EPERM without the
    /// privilege, EINVAL for frames that it does not have or for none at all. Where the kernel's pages are
    /// larger than Xen's, more than one frame is refused, as unsupported: Linux would write beyond the mapping.
    fn map_resource(
        &self,
        resource_type: u32,
        id: u32,
        frame: u32,
        frames: u64,
    ) -> Result<Mapping, MapError>;

    /// The size of the kernel's pages, [`PAGE_SIZE`] or a multiple of it: each mapping costs whole ones.
    fn kernel_page_size(&self) -> usize {
        PAGE_SIZE
    }

    /// Restricts this descriptor to the guest: it loses access to other domains and to the hypercall interface
    /// (`IOCTL_PRIVCMD_RESTRICT`). This can't be undone.
    ///
    /// # Errors
    ///
    /// EINVAL when it is restricted to another domain already.
    fn restrict(&self) -> io::Result<()>;
}

/// An open `/dev/xen/privcmd`.
#[derive(Debug)]
pub struct Privcmd {
    file: File,
    domid: DomId,
}

impl Privcmd {
    /// Opens the device for use with one guest. Makes no hypercall yet.
    ///
    /// # Errors
    ///
    /// The device is missing (not a Xen domain, or `xenfs`/`xen-privcmd` not loaded) or can't be opened by this process.
    pub fn open(domid: DomId) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/xen/privcmd")?;
        Ok(Self { file, domid })
    }

    fn error(&self, target: MapTarget, source: io::Error) -> MapError {
        MapError::new(self.domid, target, source)
    }

    /// Maps frames into a new region, in one call: with several calls, later ones would overwrite the pages of
    /// earlier ones.
    fn map_batch(&self, prot: Prot, gfns: &[u64]) -> io::Result<Batch<MmapRaw>> {
        let region = self.reserve(prot, gfns.len())?;
        let mut errors = vec![0; gfns.len()];
        let mut batch = sys::MmapBatchV2 {
            // `reserve` bounded it.
            num: gfns.len() as u32,
            dom: self.domid,
            addr: region.as_mut_ptr() as u64,
            arr: gfns.as_ptr(),
            err: errors.as_mut_ptr(),
        };
        // SAFETY: `arr` and `err` point to `num` elements each, and the `num` pages at `addr` are
        // `region`, which nobody has got a pointer into yet.
        let call = unsafe { sys::ioctl(self.as_fd(), sys::PRIVCMD_MMAPBATCH_V2, &mut batch) };
        Batch::tolerate(region, errors, call)
    }

    /// Address space for `pages` pages, to be filled by an ioctl.
    fn reserve(&self, prot: Prot, pages: usize) -> io::Result<MmapRaw> {
        let mut options = MmapOptions::new();
        options.len(bytes(pages)?);
        if prot.contains(Prot::WRITE) {
            options.map_raw(&self.file)
        } else {
            options.map_raw_read_only(&self.file)
        }
    }
}

/// The page size of this kernel: 4 KiB, or 16 or 64 KiB on some Arm kernels.
pub(crate) fn kernel_page_size() -> usize {
    // SAFETY: the call only reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).map_or(PAGE_SIZE, |size| size.max(PAGE_SIZE))
}

/// Whether a kernel with pages of this size maps so many frames of a resource, as a number of pages.
///
/// It counts each frame as a page of its own when it fills the page tables (`privcmd_ioctl_mmap_resource` of
/// `drivers/xen/privcmd.c`), though it asked for no more pages than hold them.
pub(crate) fn check_resource(frames: u64, kernel_page_size: usize) -> io::Result<usize> {
    if frames > 1 && kernel_page_size > PAGE_SIZE {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "this kernel has pages of {kernel_page_size} bytes and maps one frame of a resource at a time"
            ),
        ));
    }
    usize::try_from(frames).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The length of `pages` pages, at least one and no more than one call can name.
fn bytes(pages: usize) -> io::Result<usize> {
    match u32::try_from(pages) {
        Ok(1..) => pages.checked_mul(PAGE_SIZE),
        _ => None,
    }
    .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

impl AsFd for Privcmd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl ForeignMemory for Privcmd {
    fn domid(&self) -> DomId {
        self.domid
    }

    fn map_sparse(&self, prot: Prot, gfns: &[u64]) -> Result<(Mapping, Holes), MapError> {
        let target = MapTarget::Gfn(gfns.first().copied().unwrap_or_default());
        let Batch { region, errors } = map_frames(gfns, |gfns| self.map_batch(prot, gfns))
            .map_err(|e| self.error(target, e))?;
        let holes = errors
            .iter()
            .enumerate()
            .filter(|&(_, &error)| error != 0)
            .map(|(index, &error)| (index, error.saturating_neg()))
            .collect();
        Ok((Mapping::new(region, prot), holes))
    }

    fn map_resource(
        &self,
        resource_type: u32,
        id: u32,
        frame: u32,
        frames: u64,
    ) -> Result<Mapping, MapError> {
        let prot = Prot::READ | Prot::WRITE;
        let mapped = check_resource(frames, kernel_page_size())
            .and_then(|frames| self.reserve(prot, frames))
            .and_then(|region| {
                let mut resource = sys::MmapResource {
                    dom: self.domid,
                    resource_type,
                    id,
                    idx: frame,
                    num: frames,
                    addr: region.as_mut_ptr() as u64,
                };
                // SAFETY: the `num` pages at `addr` are `region`, which nobody has got a pointer
                // into yet.
                unsafe { sys::ioctl(self.as_fd(), sys::PRIVCMD_MMAP_RESOURCE, &mut resource) }?;
                Ok(Mapping::new(region, prot))
            });
        mapped.map_err(|e| self.error(MapTarget::Resource { resource_type, id, frame }, e))
    }

    fn kernel_page_size(&self) -> usize {
        kernel_page_size()
    }

    fn restrict(&self) -> io::Result<()> {
        let mut domid = self.domid;
        // SAFETY: the kernel reads one domid_t.
        unsafe { sys::ioctl(self.as_fd(), sys::PRIVCMD_RESTRICT, &mut domid) }
    }
}
