//! Requests that are answered later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::page::{IoreqPage, SLOTS};
use crate::ports::Ports;
use crate::request_kind::RequestKind;

/// No deferred request is in the slot.
const NONE: u8 = 0;
/// Somebody will answer it.
const DEFERRED: u8 = 1;
/// Somebody does.
const ANSWERING: u8 = 2;

/// Of which slots somebody keeps the request. Whoever answers one takes it first, so that no slot is answered twice.
pub(crate) struct Deferred([AtomicU8; SLOTS]);

impl Deferred {
    pub(crate) fn new() -> Self {
        Self([const { AtomicU8::new(NONE) }; SLOTS])
    }

    /// The slot's request is not the server's to look at.
    pub(crate) fn is_kept(&self, slot: usize) -> bool {
        self.0[slot].load(Ordering::Acquire) != NONE
    }

    /// Answers the slot's request by `answer`, unless there is none that is deferred, or another thread answers it.
    pub(crate) fn take(&self, slot: usize, answer: impl FnOnce()) -> bool {
        let taken = self.0[slot].compare_exchange(
            DEFERRED,
            ANSWERING,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if taken.is_ok() {
            answer();
            // Not before: a look of the server's would find the slot in process, and hand it out again. The vCPU's
            // next request comes after it is notified, which is later.
            self.0[slot].store(NONE, Ordering::Release);
        }
        taken.is_ok()
    }
}

/// A request that its server has handed out and does not wait for: see [`Request::defer`](crate::Request::defer).
///
/// Dropping it answers it, with all ones if it is a read. If the server ends before, it has answered it.
#[must_use = "dropping a request answers it with all ones"]
pub struct DeferredRequest {
    page: Arc<IoreqPage>,
    ports: Box<dyn Ports>,
    deferred: Arc<Deferred>,
    vcpu: u32,
    kind: RequestKind,
    is_read: bool,
    data: u64,
}

impl DeferredRequest {
    pub(crate) fn new(
        page: Arc<IoreqPage>,
        ports: Box<dyn Ports>,
        deferred: Arc<Deferred>,
        (vcpu, kind, is_read): (u32, RequestKind, bool),
    ) -> Self {
        deferred.0[vcpu as usize].store(DEFERRED, Ordering::Release);
        Self { page, ports, deferred, vcpu, kind, is_read, data: u64::MAX }
    }

    /// What is asked for.
    pub fn kind(&self) -> RequestKind {
        self.kind
    }

    /// Who asks, from 0.
    pub fn vcpu(&self) -> u32 {
        self.vcpu
    }

    /// Answers. For a read, the data is all ones.
    pub fn complete(self) {}

    /// Answers a read; `data` is little-endian as the guest sees it and is cut to the access's size. A request that is
    /// no read takes no data.
    pub fn complete_read(mut self, data: u64) {
        self.data = data;
    }
}

impl Drop for DeferredRequest {
    fn drop(&mut self) {
        let slot = self.vcpu as usize;
        let taken = self.deferred.take(slot, || {
            self.page.slot(slot).answer(self.kind.answer(self.is_read, self.data));
        });
        if taken {
            // Refused only while the guest is being destroyed.
            let _ = self.ports.notify(self.vcpu);
        }
    }
}

impl std::fmt::Debug for DeferredRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeferredRequest")
            .field("vcpu", &self.vcpu)
            .field("kind", &self.kind)
            .finish()
    }
}
