//! One trapped access, which is answered when it is dropped.

use std::io;
use std::sync::Arc;

use crate::deferred::{Deferred, DeferredRequest};
use crate::page::{IoreqPage, RawRequest};
use crate::ports::Ports;
use crate::request_kind::RequestKind;

/// A request taken from its slot. The vCPU waits for the answer.
///
/// It is answered in any case, also if it is dropped by an early return or a panic: reads give all ones then.
/// A request that is [forgotten](std::mem::forget) is returned again by the server. To answer it after others
/// have been served, [defer](Self::defer) it.
#[must_use = "dropping a request answers it with all ones"]
pub struct Request<'a> {
    pub(crate) page: &'a Arc<IoreqPage>,
    pub(crate) ports: &'a dyn Ports,
    pub(crate) deferred: &'a Arc<Deferred>,
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

    /// Lets the vCPU wait for an answer that comes later, maybe from another thread, while the server goes on with
    /// other requests. Another vCPU's are not held up.
    pub fn defer(self) -> DeferredRequest {
        let Self { page, ports, deferred, vcpu, kind, raw, .. } = &self;
        let later = DeferredRequest::new(
            Arc::clone(page),
            ports.share(),
            Arc::clone(deferred),
            (*vcpu, *kind, raw.is_read() && !raw.data_is_ptr()),
        );
        std::mem::forget(self);
        later
    }

    /// Answers a read. `data` is little-endian as the guest sees it, and truncated to the access's size. For
    /// other requests it is ignored.
    pub fn complete_read(mut self, data: u64) {
        self.data = data;
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let is_read = self.raw.is_read() && !self.raw.data_is_ptr();
        self.page.slot(self.vcpu as usize).answer(self.kind.answer(is_read, self.data));
        if let Err(source) = self.ports.notify(self.vcpu) {
            *self.failure = Some((self.vcpu, source));
        }
    }
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("vcpu", &self.vcpu).field("kind", &self.kind).finish()
    }
}
