//! Grants: pages a guest shares with us by reference.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapOptions;
use vm_memory::VolatileSlice;

use crate::domid::DomId;
use crate::error::{MapError, MapTarget};
use crate::foreign::kernel_page_size;
use crate::mapping::{Mapping, Prot, Release, Unmap};
use crate::page::PAGE_SIZE;
use crate::sys;

/// One descriptor of `/dev/xen/gntdev`, used for one guest.
pub trait GrantTable: Send + Sync + 'static {
    /// The guest.
    fn domid(&self) -> DomId;

    /// Maps granted pages one after the other, all or nothing.
    ///
    /// Dropping the mapping gives the grants back before it returns. The guest can't end its grants
    /// until then. A page granted read-only can be mapped without [`Prot::WRITE`] only.
    ///
    /// # Errors
    ///
    /// EINVAL for a reference the guest has not granted to us, or not with that access, and for no
    /// references at all, or for more than [`grants_per_mapping`](Self::grants_per_mapping); the kernel's
    /// limits give EINVAL, ENOMEM or ENOSPC.
    fn map(&self, grefs: &[u32], prot: Prot) -> Result<Mapping, MapError>;

    /// How many grants one mapping may have. The kernel gives each grant a page of its own, so where its pages
    /// are larger than Xen's, several don't lie one after the other: it is one then.
    fn grants_per_mapping(&self) -> usize {
        usize::MAX
    }

    /// Copies between local memory and granted pages, in one call to Xen for all segments.
    ///
    /// Ok says that each segment was tried: whether it was copied is its
    /// [`status`](CopySegment::status).
    ///
    /// # Errors
    ///
    /// EINVAL when a segment leaves its page (then nothing was copied), EFAULT when local memory is
    /// not there. The segments' statuses mean nothing then.
    fn copy(&self, segments: &mut [CopySegment<'_>]) -> io::Result<()>;

    /// How many mappings the kernel refused to give back. Never more than none, but for its bugs.
    fn unmap_failures(&self) -> u64 {
        0
    }
}

/// One piece of a grant copy: local memory on one side, (a part of) a granted page on the other.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct CopySegment<'a> {
    raw: sys::GrantCopySegment,
    local: PhantomData<&'a ()>,
}

/// The status of a segment that Xen has not looked at: `GNTST_general_error`.
const NOT_DONE: i16 = -1;

impl<'a> CopySegment<'a> {
    /// From the granted page, starting `offset` bytes into it, to all of `local`.
    pub fn from_guest(gref: u32, offset: u16, local: VolatileSlice<'a>) -> Self {
        let raw = sys::GrantCopySegment {
            source: sys::CopyEnd::grant(gref, offset),
            dest: sys::CopyEnd::local(local.ptr_guard_mut().as_ptr()),
            // More than a page never fits, and is refused by the copy.
            len: u16::try_from(local.len()).unwrap_or(u16::MAX),
            flags: sys::GNTCOPY_SOURCE_GREF,
            status: NOT_DONE,
        };
        Self { raw, local: PhantomData }
    }

    /// From all of `local` to the granted page, starting `offset` bytes into it.
    pub fn to_guest(gref: u32, offset: u16, local: VolatileSlice<'a>) -> Self {
        let mut segment = Self::from_guest(gref, offset, local);
        std::mem::swap(&mut segment.raw.source, &mut segment.raw.dest);
        segment.raw.flags = sys::GNTCOPY_DEST_GREF;
        segment
    }

    /// `GNTST_*` of `xen/include/public/grant_table.h`: 0 is done, below is why not.
    pub fn status(&self) -> i16 {
        self.raw.status
    }

    /// Whether it was copied.
    pub fn is_done(&self) -> bool {
        self.status() == 0
    }

    /// Whether the guest's page is written.
    pub fn is_to_guest(&self) -> bool {
        self.raw.flags & sys::GNTCOPY_DEST_GREF != 0
    }

    /// The grant reference.
    pub fn gref(&self) -> u32 {
        self.grant_end().gref()
    }

    /// Where in the granted page it starts.
    pub fn offset(&self) -> u16 {
        self.grant_end().offset()
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.raw.len.into()
    }

    /// Whether there is nothing to copy.
    pub fn is_empty(&self) -> bool {
        self.raw.len == 0
    }

    fn grant_end(&self) -> sys::CopyEnd {
        if self.is_to_guest() { self.raw.dest } else { self.raw.source }
    }

    /// The local end, for whoever copies in the kernel's place.
    #[cfg(feature = "test-utils")]
    pub(crate) fn local(&self) -> VolatileSlice<'a> {
        let end = if self.is_to_guest() { self.raw.source } else { self.raw.dest };
        // SAFETY: the address is that of the slice the segment was made of, at least `len` bytes
        // long and borrowed for 'a.
        unsafe { VolatileSlice::new(end.address(), self.len()) }
    }

    #[cfg(feature = "test-utils")]
    pub(crate) fn set_status(&mut self, status: i16) {
        self.raw.status = status;
    }

    fn set_domid(&mut self, domid: DomId) {
        let end = if self.is_to_guest() { &mut self.raw.dest } else { &mut self.raw.source };
        *end = end.with_domid(domid);
    }
}

impl fmt::Debug for CopySegment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopySegment")
            .field("gref", &self.gref())
            .field("offset", &self.offset())
            .field("len", &self.len())
            .field("to_guest", &self.is_to_guest())
            .field("status", &self.status())
            .finish()
    }
}

/// An open `/dev/xen/gntdev`.
#[derive(Debug)]
pub struct Gntdev {
    // Shared with the mappings, which unmap through it.
    device: Arc<Device>,
    domid: DomId,
    kernel_page_size: usize,
}

#[derive(Debug)]
struct Device {
    file: File,
    unmap_failures: AtomicU64,
}

/// The most grants in one mapping, for a kernel with pages of this size.
pub(crate) fn grants_per_mapping(kernel_page_size: usize) -> usize {
    if kernel_page_size > PAGE_SIZE { 1 } else { usize::MAX }
}

/// The most grants that are mapped without an allocation.
const GRANTS_ON_STACK: usize = 64;

impl Gntdev {
    /// Opens the device for use with one guest.
    ///
    /// # Errors
    ///
    /// The device is missing (not a Xen domain, or `xen-gntdev` not loaded) or can't be opened by this process.
    pub fn open(domid: DomId) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/xen/gntdev")?;
        let device = Arc::new(Device { file, unmap_failures: AtomicU64::new(0) });
        Ok(Self { device, domid, kernel_page_size: kernel_page_size() })
    }

    fn map_grants(&self, grefs: &[u32], prot: Prot) -> io::Result<Mapping> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        if grefs.len() > self.grants_per_mapping() {
            return Err(invalid());
        }
        let count = match u32::try_from(grefs.len()) {
            Ok(0) | Err(_) => return Err(invalid()),
            Ok(count) => count,
        };
        let len = grefs.len().checked_mul(PAGE_SIZE).ok_or_else(invalid)?;

        let mut stack = [0; sys::MAP_GRANT_REF_HEADER_WORDS + GRANTS_ON_STACK];
        let mut heap = Vec::new();
        let words = sys::MAP_GRANT_REF_HEADER_WORDS + grefs.len();
        let argument = match stack.get_mut(..words) {
            Some(stack) => stack,
            None => {
                heap.resize(words, 0);
                heap.as_mut_slice()
            }
        };
        let (header, refs) = argument.split_at_mut(sys::MAP_GRANT_REF_HEADER_WORDS);
        header[0] = count.into();
        for (word, &gref) in refs.iter_mut().zip(grefs) {
            *word = sys::grant_ref_word(self.domid, gref);
        }
        // SAFETY: the argument is the header followed by the `count` references it announces.
        unsafe {
            sys::ioctl(self.device.file.as_fd(), sys::GNTDEV_MAP_GRANT_REF, argument.as_mut_ptr())
        }?;
        let index = argument[1];
        let release = Release::new(self.device.clone(), index, count);
        let mut options = MmapOptions::new();
        options.offset(index).len(len);
        let region = if prot.contains(Prot::WRITE) {
            options.map_raw(&self.device.file)
        } else {
            options.map_raw_read_only(&self.device.file)
        }?;
        Ok(Mapping::with_release(region, prot, release))
    }
}

impl Unmap for Device {
    fn unmap(&self, index: u64, count: u32) {
        let mut argument = sys::UnmapGrantRef { index, count, pad: 0 };
        // SAFETY: the kernel reads the struct; the pages are no longer mapped.
        let result =
            unsafe { sys::ioctl(self.file.as_fd(), sys::GNTDEV_UNMAP_GRANT_REF, &mut argument) };
        if result.is_err() {
            self.unmap_failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl AsFd for Gntdev {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.file.as_fd()
    }
}

impl GrantTable for Gntdev {
    fn domid(&self) -> DomId {
        self.domid
    }

    fn map(&self, grefs: &[u32], prot: Prot) -> Result<Mapping, MapError> {
        let target = MapTarget::Gref(grefs.first().copied().unwrap_or_default());
        self.map_grants(grefs, prot).map_err(|e| MapError::new(self.domid, target, e))
    }

    fn grants_per_mapping(&self) -> usize {
        grants_per_mapping(self.kernel_page_size)
    }

    fn copy(&self, segments: &mut [CopySegment<'_>]) -> io::Result<()> {
        for segment in segments.iter_mut() {
            if usize::from(segment.offset()) + segment.len() > PAGE_SIZE {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            segment.set_domid(self.domid);
        }
        let count = u32::try_from(segments.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let mut argument = sys::GrantCopy { count, segments: segments.as_mut_ptr().cast() };
        // SAFETY: `segments` are `count` kernel structs (`CopySegment` is a transparent wrapper),
        // and each segment borrows the local memory it names, for volatile access.
        unsafe { sys::ioctl(self.as_fd(), sys::GNTDEV_GRANT_COPY, &mut argument) }
    }

    fn unmap_failures(&self) -> u64 {
        self.device.unmap_failures.load(Ordering::Relaxed)
    }
}
