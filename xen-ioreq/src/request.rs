//! One trapped access, which is answered when it is dropped.

use std::io;

use xen_evtchn::{EventChannel, Port};

use crate::page::RawRequest;
use crate::sys::{IOREQ_TYPE_COPY, IOREQ_TYPE_INVALIDATE, Ioreq};

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
}

/// The bits of an access of `size` bytes.
fn mask(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size))
}

/// Tells a vCPU that its request was answered. A trait, so that [`Request`] needn't have the type of the
/// event channel.
pub(crate) trait Notifier {
    fn notify_vcpu(&self) -> io::Result<()>;
}

impl<E: EventChannel> Notifier for Port<E> {
    fn notify_vcpu(&self) -> io::Result<()> {
        self.notify()
    }
}

/// A request taken from its slot. The vCPU waits for the answer.
///
/// It is answered in any case, also if it is dropped by an early return or a panic: reads give all ones then.
/// A request that is [forgotten](std::mem::forget) is returned again by the server.
#[must_use = "dropping a request answers it with all ones"]
pub struct Request<'a> {
    pub(crate) slot: &'a Ioreq,
    pub(crate) notifier: &'a dyn Notifier,
    /// Where a failed notification is stored, to be returned by the next `next_request`.
    pub(crate) failure: &'a mut Option<(u32, io::Error)>,
    pub(crate) vcpu: u32,
    pub(crate) raw: RawRequest,
    pub(crate) kind: RequestKind,
    pub(crate) data: u64,
}

impl Request<'_> {
    /// The kind of request.
    pub fn kind(&self) -> RequestKind {
        self.kind
    }

    /// The number of the vCPU, from 0.
    pub fn vcpu(&self) -> u32 {
        self.vcpu
    }

    /// Answers the request. For a read, the data is all ones.
    ///
    /// A failure to wake the vCPU, as when the guest is being destroyed, is reported by the next
    /// [`next_request`](crate::IoreqServer::next_request).
    pub fn complete(self) {}

    /// Answers a read. `data` is little-endian as the guest sees it, and truncated to the access's size. For
    /// other requests it is ignored.
    pub fn complete_read(mut self, data: u64) {
        self.data = data;
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let data = match self.kind {
            RequestKind::Read { size, .. } => Some(self.data & mask(size)),
            RequestKind::Unsupported(_) if self.raw.is_read() && !self.raw.data_is_ptr() => {
                Some(u64::MAX)
            }
            _ => None,
        };
        self.slot.answer(data);
        if let Err(source) = self.notifier.notify_vcpu() {
            *self.failure = Some((self.vcpu, source));
        }
    }
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("vcpu", &self.vcpu).field("kind", &self.kind).finish()
    }
}
