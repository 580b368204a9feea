//! Real pages that several mappings share.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use memmap2::{MmapOptions, MmapRaw};
use vm_memory::VolatileSlice;

use crate::mapping::{Mapping, Prot};
use crate::page::PAGE_SIZE;

/// Zeroed pages of memory that can be mapped again and again, in any order.
#[derive(Debug)]
pub struct FakePages {
    file: File,
    view: Mapping,
}

impl FakePages {
    /// `pages` pages, at least one. They cost memory once they are written.
    ///
    /// # Errors
    ///
    /// The host refuses the memory.
    pub fn new(pages: usize) -> io::Result<Self> {
        let (file, region) = memory(pages * PAGE_SIZE)?;
        Ok(Self { file, view: Mapping::new(region, Prot::READ | Prot::WRITE) })
    }

    /// How many pages.
    pub fn pages(&self) -> usize {
        self.view.len() / PAGE_SIZE
    }

    /// All of the memory, as its owner sees it.
    pub fn view(&self) -> VolatileSlice<'_> {
        self.view.as_volatile_slice()
    }

    /// Where the owner's view starts; valid as long as `self`.
    pub fn as_ptr(&self) -> *mut u8 {
        self.view.as_ptr()
    }

    /// Maps the given pages one after the other; `None` is a hole, which faults when touched.
    pub(crate) fn alias(&self, prot: Prot, pages: &[Option<usize>]) -> io::Result<MmapRaw> {
        let mut options = MmapOptions::new();
        options.len(pages.len() * PAGE_SIZE).no_reserve_swap();
        let region = MmapRaw::from(options.map_anon()?);
        let mut first = 0;
        for run in pages.chunk_by(|a, b| match (a, b) {
            (Some(a), Some(b)) => a + 1 == *b,
            (None, None) => true,
            _ => false,
        }) {
            self.place(&region, first, run.len(), prot, run[0])?;
            first += run.len();
        }
        Ok(region)
    }

    /// Puts `count` of our pages (or a hole) into `region` at page `at`.
    fn place(
        &self,
        region: &MmapRaw,
        at: usize,
        count: usize,
        prot: Prot,
        page: Option<usize>,
    ) -> io::Result<()> {
        let offset = page.unwrap_or_default() * PAGE_SIZE;
        let (access, flags, fd) = match page {
            None => (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
            Some(_) if prot.contains(Prot::WRITE) => {
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, self.file.as_raw_fd())
            }
            Some(_) => (libc::PROT_READ, libc::MAP_SHARED, self.file.as_raw_fd()),
        };
        // The range lies in `region`: the caller's runs add up to its length.
        let address = region.as_mut_ptr().wrapping_add(at * PAGE_SIZE);
        // SAFETY: MAP_FIXED replaces pages of `region` only, which nobody has got a pointer into.
        let placed = unsafe {
            libc::mmap(
                address.cast(),
                count * PAGE_SIZE,
                access,
                flags | libc::MAP_FIXED | libc::MAP_NORESERVE,
                fd,
                offset as libc::off_t,
            )
        };
        if placed == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Memory that can be mapped again, and a mapping of all of it.
#[cfg(not(miri))]
fn memory(len: usize) -> io::Result<(File, MmapRaw)> {
    use std::os::fd::FromRawFd;

    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"fake guest".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and nobody else has it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len as u64)?;
    let region = MmapOptions::new().len(len).no_reserve_swap().map_raw(&file)?;
    Ok((file, region))
}

/// Miri maps nothing twice: there is the one mapping, and no file that could be mapped again.
#[cfg(miri)]
fn memory(len: usize) -> io::Result<(File, MmapRaw)> {
    let region = MmapOptions::new().len(len).map_anon()?;
    Ok((File::open("/dev/null")?, MmapRaw::from(region)))
}
