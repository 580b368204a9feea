//! A device's registers, through /dev/mem.

use anyhow::{Context as _, Result};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;

const PAGE: u64 = 4096;

/// The register window of a virtio-mmio device (virtio 1.2 §4.2.2), mapped uncached.
pub(crate) struct Window {
    page: MmapRaw,
    offset: usize,
}

impl Window {
    /// Bytes of a window on Xen for Arm.
    pub(crate) const LEN: usize = 0x200;

    /// Maps the window at a physical address; its driver must be unbound.
    pub(crate) fn map(base: u64) -> Result<Self> {
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_SYNC)
            .open("/dev/mem")
            .context("opening /dev/mem")?;
        let page = MmapOptions::new()
            .len(PAGE as usize)
            .offset(base / PAGE * PAGE)
            .map_raw(&memory)
            .with_context(|| format!("mapping the window at {base:#x}"))?;
        Ok(Self { page, offset: usize::try_from(base % PAGE)? })
    }

    /// The place of `len` bytes at `offset`.
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset + len <= Self::LEN && offset.is_multiple_of(len), "within the window");
        self.page.as_mut_ptr().wrapping_add(self.offset + offset)
    }

    pub(crate) fn read8(&self, offset: usize) -> u8 {
        // SAFETY: `at` gives an aligned place in the mapping, which lives as long as `self`.
        unsafe { access::read8(self.at(offset, 1)) }
    }

    pub(crate) fn read16(&self, offset: usize) -> u16 {
        // SAFETY: as in `read8`.
        unsafe { access::read16(self.at(offset, 2).cast()) }
    }

    pub(crate) fn read(&self, offset: usize) -> u32 {
        // SAFETY: as in `read8`.
        unsafe { access::read32(self.at(offset, 4).cast()) }
    }

    pub(crate) fn read64(&self, offset: usize) -> u64 {
        // SAFETY: as in `read8`.
        unsafe { access::read64(self.at(offset, 8).cast()) }
    }

    pub(crate) fn write8(&self, offset: usize, value: u8) {
        // SAFETY: as in `read8`; what a register does with a value is the device's to bound.
        unsafe { access::write8(self.at(offset, 1), value) }
    }

    pub(crate) fn write16(&self, offset: usize, value: u16) {
        // SAFETY: as in `write8`.
        unsafe { access::write16(self.at(offset, 2).cast(), value) }
    }

    pub(crate) fn write(&self, offset: usize, value: u32) {
        // SAFETY: as in `write8`.
        unsafe { access::write32(self.at(offset, 4).cast(), value) }
    }

    pub(crate) fn write64(&self, offset: usize, value: u64) {
        // SAFETY: as in `write8`.
        unsafe { access::write64(self.at(offset, 8).cast(), value) }
    }
}

/// Single loads and stores. Arm describes a trapped access to the hypervisor only if it is a plain
/// one, without a change of the address register, which a compiler is free to choose.
#[cfg(target_arch = "aarch64")]
mod access {
    use std::arch::asm;

    macro_rules! accesses {
        ($($read:ident $load:literal, $write:ident $store:literal, $type:ty;)*) => {
            $(
                /// # Safety
                /// The place is mapped and aligned.
                pub(super) unsafe fn $read(place: *mut $type) -> $type {
                    let value: u64;
                    // SAFETY: as the caller promises.
                    unsafe { asm!($load, out(reg) value, in(reg) place, options(nostack)) }
                    value as $type
                }

                /// # Safety
                /// The place is mapped and aligned.
                pub(super) unsafe fn $write(place: *mut $type, value: $type) {
                    let value = u64::from(value);
                    // SAFETY: as the caller promises.
                    unsafe { asm!($store, in(reg) value, in(reg) place, options(nostack)) }
                }
            )*
        };
    }

    accesses! {
        read8 "ldrb {0:w}, [{1}]", write8 "strb {0:w}, [{1}]", u8;
        read16 "ldrh {0:w}, [{1}]", write16 "strh {0:w}, [{1}]", u16;
        read32 "ldr {0:w}, [{1}]", write32 "str {0:w}, [{1}]", u32;
        read64 "ldr {0}, [{1}]", write64 "str {0}, [{1}]", u64;
    }
}

#[cfg(not(target_arch = "aarch64"))]
mod access {
    macro_rules! accesses {
        ($($read:ident, $write:ident, $type:ty;)*) => {
            $(
                /// # Safety
                /// The place is mapped and aligned.
                pub(super) unsafe fn $read(place: *mut $type) -> $type {
                    // SAFETY: as the caller promises.
                    unsafe { place.read_volatile() }
                }

                /// # Safety
                /// The place is mapped and aligned.
                pub(super) unsafe fn $write(place: *mut $type, value: $type) {
                    // SAFETY: as the caller promises.
                    unsafe { place.write_volatile(value) }
                }
            )*
        };
    }

    accesses! {
        read8, write8, u8;
        read16, write16, u16;
        read32, write32, u32;
        read64, write64, u64;
    }
}
