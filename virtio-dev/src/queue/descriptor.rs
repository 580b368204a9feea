//! One descriptor.

/// The size of a descriptor in bytes.
pub(super) const DESCRIPTOR: usize = size_of::<RawDescriptor>();

/// A descriptor as it lies in memory, in two halves.
pub(super) type RawDescriptor = [u64; 2];

/// `VIRTQ_DESC_F_NEXT`, `VIRTQ_DESC_F_WRITE` and `VIRTQ_DESC_F_INDIRECT` (virtio 1.2 §2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// `{ addr: le64, len: le32, flags: le16, next: le16 }` (virtio 1.2 §2.7.5).
#[derive(Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    flags: u16,
    pub(super) next: u16,
}

impl Descriptor {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each field is cut out")]
    pub(super) fn parse([low, high]: RawDescriptor) -> Self {
        let high = u64::from_le(high);
        Self {
            addr: u64::from_le(low),
            len: high as u32,
            flags: (high >> 32) as u16,
            next: (high >> 48) as u16,
        }
    }

    /// The chain goes on at [`next`](Self::next).
    #[inline]
    pub(super) fn has_next(&self) -> bool {
        self.flags & NEXT != 0
    }

    /// A buffer that the device reads.
    #[inline]
    pub(super) fn is_readable(&self) -> bool {
        self.flags & (WRITE | INDIRECT) == 0
    }

    /// A buffer that the device writes.
    #[inline]
    pub(super) fn is_writable(&self) -> bool {
        self.flags & (WRITE | INDIRECT) == WRITE
    }

    /// A table of descriptors. Its WRITE flag means nothing (virtio 1.2 §2.7.5.3.2).
    #[inline]
    pub(super) fn is_indirect(&self) -> bool {
        self.flags & INDIRECT != 0
    }
}
