//! What driver and device share: structures made of atomics, over memory that both may change.

use std::mem::{align_of, size_of};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use vm_memory::VolatileSlice;

/// A value that may change under a shared reference, and that every bit pattern is one of.
///
/// # Safety
/// Made of atomic integers alone, besides padding.
pub(crate) unsafe trait Shared {}

// SAFETY: an atomic integer.
unsafe impl Shared for AtomicU16 {}

/// `struct virtq_desc` (virtio 1.2 §2.7.5).
#[repr(C)]
pub(crate) struct Descriptor {
    addr: AtomicU64,
    len: AtomicU32,
    flags: AtomicU16,
    next: AtomicU16,
}

// SAFETY: four atomic integers.
unsafe impl Shared for Descriptor {}

impl Descriptor {
    pub(crate) fn set(&self, addr: u64, len: u32, flags: u16, next: u16) {
        self.addr.store(addr.to_le(), Ordering::Relaxed);
        self.len.store(len.to_le(), Ordering::Relaxed);
        self.flags.store(flags.to_le(), Ordering::Relaxed);
        self.next.store(next.to_le(), Ordering::Relaxed);
    }
}

/// `struct virtq_used_elem` (virtio 1.2 §2.7.8).
#[repr(C)]
pub(crate) struct UsedEntry {
    pub(crate) id: AtomicU32,
    len: AtomicU32,
}

// SAFETY: two atomic integers.
unsafe impl Shared for UsedEntry {}

/// Header and status of a request (virtio 1.2 §5.2.6), in a cache line.
#[repr(C, align(64))]
pub(crate) struct RequestArea {
    pub(crate) kind: AtomicU32,
    ioprio: AtomicU32,
    pub(crate) sector: AtomicU64,
    pub(crate) status: AtomicU8,
}

// SAFETY: four atomic integers.
unsafe impl Shared for RequestArea {}

/// The values at `offset` of `memory`.
///
/// # Panics
/// If they reach beyond its end, or aren't aligned.
pub(crate) fn view<'m, T: Shared>(
    memory: &VolatileSlice<'m>,
    offset: usize,
    count: usize,
) -> &'m [T] {
    let part = memory.subslice(offset, count * size_of::<T>()).expect("within the memory");
    let start = part.ptr_guard_mut().as_ptr().cast::<T>();
    assert!(start.addr().is_multiple_of(align_of::<T>()), "unaligned at {offset:#x}");
    // SAFETY: the slice's bytes are there for 'm; they are `count` aligned values of a type whose
    // every bit pattern is valid and that is only ever accessed atomically.
    unsafe { std::slice::from_raw_parts(start, count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_specification() {
        assert_eq!(size_of::<Descriptor>(), 16);
        assert_eq!(size_of::<UsedEntry>(), 8);
        assert_eq!(size_of::<RequestArea>(), 64);
        assert_eq!(std::mem::offset_of!(RequestArea, status), 16, "the status ends the header");
    }

    #[test]
    #[should_panic(expected = "within the memory")]
    fn nothing_beyond_the_memory_is_seen() {
        let mut bytes = [0_u8; 64];
        view::<Descriptor>(&VolatileSlice::from(bytes.as_mut_slice()), 48, 2);
    }
}
