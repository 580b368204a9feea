//! What a vCPU asks for.

use crate::page::RawRequest;
use crate::sys::{IOREQ_TYPE_COPY, IOREQ_TYPE_INVALIDATE};

/// The request of a vCPU (`hvm/ioreq.h`). It is validated: `size` is 1, 2, 4 or 8, and `addr + size` doesn't
/// wrap. The caller has to check whether `addr` belongs to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestKind {
    /// A load from guest-physical `addr`.
    Read {
        /// The first byte.
        addr: u64,
        /// Bytes: 1, 2, 4 or 8.
        size: u8,
    },
    /// A store to guest-physical `addr`.
    Write {
        /// The first byte.
        addr: u64,
        /// Bytes: 1, 2, 4 or 8.
        size: u8,
        /// The value, little-endian as the guest sees it, with zeroes above `size` bytes.
        data: u64,
    },
    /// The guest's memory map has changed: drop cached foreign mappings. It is the first request of every
    /// boot and goes to every server of the guest at once; the vCPU waits for all of them.
    Invalidate,
    /// A type (`IOREQ_TYPE_*`) that isn't used on Arm, or a memory access that isn't valid: a string operation,
    /// data by pointer, another size. Reads give all ones.
    Unsupported(u8),
}

impl RequestKind {
    pub(crate) fn new(raw: &RawRequest) -> Self {
        // The type first: the other fields of an INVALIDATE mean nothing.
        match raw.kind {
            IOREQ_TYPE_INVALIDATE => return Self::Invalidate,
            IOREQ_TYPE_COPY if raw.count == 1 && !raw.data_is_ptr() => {}
            kind => return Self::Unsupported(kind),
        }
        let addr = raw.addr;
        let size = match raw.size {
            size @ (1 | 2 | 4 | 8) if addr.checked_add(u64::from(size) - 1).is_some() => size as u8,
            _ => return Self::Unsupported(raw.kind),
        };
        if raw.is_read() {
            Self::Read { addr, size }
        } else {
            // Xen on Arm sends the whole register, whatever the width of the store.
            Self::Write { addr, size, data: raw.data & mask(size) }
        }
    }

    /// What a slot is answered with, by `data` for a read.
    pub(crate) fn answer(self, is_read: bool, data: u64) -> Option<u64> {
        match self {
            Self::Read { size, .. } => Some(data & mask(size)),
            Self::Unsupported(_) if is_read => Some(u64::MAX),
            _ => None,
        }
    }
}

/// The bits of an access of `size` bytes.
fn mask(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size))
}
