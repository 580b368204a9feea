//! Pages of this process whose physical addresses are known.

use anyhow::{Context as _, Result, bail};
use memmap2::{MmapMut, MmapRaw};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU16, Ordering};

pub(crate) const PAGE: usize = 4096;

/// Memory that the device may be told of, and may change at any time.
pub(crate) struct Memory {
    map: MmapRaw,
    frames: Vec<u64>,
}

impl Memory {
    /// So many pages, zeroed and kept where they are.
    pub(crate) fn pages(count: usize) -> Result<Self> {
        let mut map = MmapMut::map_anon(count * PAGE).context("allocating memory")?;
        map.fill(0);
        let map = MmapRaw::from(map);
        // SAFETY: the range is ours and mapped; locking changes no content.
        if unsafe { libc::mlock(map.as_ptr().cast(), map.len()) } != 0 {
            return Err(std::io::Error::last_os_error()).context("locking memory");
        }
        let pagemap = File::open("/proc/self/pagemap").context("opening /proc/self/pagemap")?;
        let frames = (0..count)
            .map(|page| frame(&pagemap, map.as_ptr() as usize / PAGE + page))
            .collect::<Result<_>>()?;
        Ok(Self { map, frames })
    }

    /// The guest's physical address of an offset.
    pub(crate) fn address(&self, offset: usize) -> u64 {
        self.frames[offset / PAGE] * PAGE as u64 + (offset % PAGE) as u64
    }

    fn place(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset + len <= self.map.len() && offset.is_multiple_of(len), "within the memory");
        self.map.as_mut_ptr().wrapping_add(offset)
    }

    pub(crate) fn read8(&self, offset: usize) -> u8 {
        // SAFETY: `place` gives an aligned place in the mapping, which lives as long as `self`.
        unsafe { self.place(offset, 1).read_volatile() }
    }

    pub(crate) fn write8(&self, offset: usize, value: u8) {
        // SAFETY: as in `read8`; nobody holds a reference into the mapping.
        unsafe { self.place(offset, 1).write_volatile(value) }
    }

    pub(crate) fn read16(&self, offset: usize) -> u16 {
        self.atomic(offset).load(Ordering::Acquire)
    }

    pub(crate) fn write16(&self, offset: usize, value: u16) {
        self.atomic(offset).store(value, Ordering::Release);
    }

    fn atomic(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: as in `read8`; the device changes it by aligned stores alone.
        unsafe { AtomicU16::from_ptr(self.place(offset, 2).cast()) }
    }

    pub(crate) fn read32(&self, offset: usize) -> u32 {
        // SAFETY: as in `read8`.
        unsafe { self.place(offset, 4).cast::<u32>().read_volatile() }
    }

    pub(crate) fn write32(&self, offset: usize, value: u32) {
        // SAFETY: as in `write8`.
        unsafe { self.place(offset, 4).cast::<u32>().write_volatile(value) }
    }

    pub(crate) fn write64(&self, offset: usize, value: u64) {
        // SAFETY: as in `write8`.
        unsafe { self.place(offset, 8).cast::<u64>().write_volatile(value) }
    }

    /// A copy of what is there.
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        (offset..offset + len).map(|at| self.read8(at)).collect()
    }

    pub(crate) fn fill(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            self.write8(at, *byte);
        }
    }
}

/// The frame of a page of this process (Documentation/admin-guide/mm/pagemap.rst).
fn frame(pagemap: &File, page: usize) -> Result<u64> {
    let mut entry = [0; 8];
    pagemap.read_exact_at(&mut entry, page as u64 * 8)?;
    let entry = u64::from_le_bytes(entry);
    let frame = entry & ((1 << 55) - 1);
    if entry >> 63 == 0 || frame == 0 {
        bail!("/proc/self/pagemap doesn't tell: not root?");
    }
    Ok(frame)
}
