//! The page Xen shares with an IOREQ server: one slot a vCPU.

use std::sync::atomic::Ordering;

use xen_foreignmem::{Mapping, PAGE_SIZE};

use crate::sys::{
    FLAG_DATA_IS_PTR, FLAG_READ, Ioreq, STATE_IOREQ_INPROCESS, STATE_IOREQ_READY,
    STATE_IORESP_READY, STATE_MASK,
};

/// How many vCPUs a page has slots for.
pub(crate) const SLOTS: usize = PAGE_SIZE / size_of::<Ioreq>();

/// How often a slot that somebody else works on is looked at again before it is taken over: some
/// milliseconds, where the kernel's ioeventfd handler takes microseconds.
const PATIENCE: u32 = 10_000;

/// A server's slots, mapped.
#[derive(Debug)]
pub(crate) struct IoreqPage {
    mapping: Mapping,
}

impl IoreqPage {
    /// A mapping is at least a page.
    pub(crate) fn new(mapping: Mapping) -> Self {
        assert!(mapping.len() >= PAGE_SIZE, "a mapping is at least a page");
        Self { mapping }
    }

    /// The address the kernel knows the page by.
    pub(crate) fn address(&self) -> u64 {
        self.mapping.as_ptr() as u64
    }

    /// # Panics
    ///
    /// When `vcpu` has no slot: who made the page has compared the guest's vCPUs with [`SLOTS`].
    pub(crate) fn slot(&self, vcpu: usize) -> &Ioreq {
        assert!(vcpu < SLOTS, "vCPU {vcpu} has no slot");
        // SAFETY: the mapping is at least a page long (checked in `new`), so the slot lies in it.
        let slot = unsafe { self.mapping.as_ptr().cast::<Ioreq>().add(vcpu) };
        // SAFETY: the page is mapped, aligned and readable and writable as long as `self` is borrowed;
        // every field of `Ioreq` is an atomic, for which every bit pattern is valid, and which others may
        // change at any time.
        unsafe { &*slot }
    }
}

/// What a slot asked for, copied once. Nothing of it has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawRequest {
    pub(crate) addr: u64,
    pub(crate) data: u64,
    pub(crate) count: u32,
    pub(crate) size: u32,
    pub(crate) flags: u8,
    pub(crate) kind: u8,
}

impl RawRequest {
    pub(crate) fn is_read(&self) -> bool {
        self.flags & FLAG_READ != 0
    }

    pub(crate) fn data_is_ptr(&self) -> bool {
        self.flags & FLAG_DATA_IS_PTR != 0
    }
}

impl Ioreq {
    pub(crate) fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire) & STATE_MASK
    }

    /// Takes the request, if there is one: READY becomes INPROCESS.
    ///
    /// A slot may already be INPROCESS. Either the kernel's ioeventfd handler looks at it and puts it back
    /// in a moment, which is waited for, or who was serving it died, and then it is served here.
    pub(crate) fn claim(&self) -> Option<RawRequest> {
        let mut patience = PATIENCE;
        loop {
            let byte = self.state.load(Ordering::Acquire);
            match byte & STATE_MASK {
                STATE_IOREQ_READY => {
                    let claimed = byte & !STATE_MASK | STATE_IOREQ_INPROCESS;
                    let won = self.state.compare_exchange(
                        byte,
                        claimed,
                        Ordering::Acquire,
                        Ordering::Relaxed,
                    );
                    if won.is_ok() {
                        return Some(self.copy(byte));
                    }
                }
                STATE_IOREQ_INPROCESS if patience == 0 => return Some(self.copy(byte)),
                STATE_IOREQ_INPROCESS => {
                    patience -= 1;
                    std::thread::yield_now();
                }
                _ => return None,
            }
        }
    }

    fn copy(&self, flags: u8) -> RawRequest {
        RawRequest {
            addr: self.addr.load(Ordering::Relaxed),
            data: self.data.load(Ordering::Relaxed),
            count: self.count.load(Ordering::Relaxed),
            size: self.size.load(Ordering::Relaxed),
            flags: flags & !STATE_MASK,
            kind: self.kind.load(Ordering::Relaxed),
        }
    }

    /// Answers a claimed request: INPROCESS becomes IORESP_READY, after `data` was stored.
    ///
    /// A slot in another state is left alone. The state may only go up (`wait_for_io` of
    /// `xen/common/ioreq.c` crashes the guest otherwise), and a response in an idle slot would jam it.
    pub(crate) fn answer(&self, data: Option<u64>) {
        let byte = self.state.load(Ordering::Relaxed);
        if byte & STATE_MASK != STATE_IOREQ_INPROCESS {
            return;
        }
        if let Some(data) = data {
            self.data.store(data, Ordering::Relaxed);
        }
        // Losing means that the kernel has put the slot back to READY: it will be served once more.
        let _ = self.state.compare_exchange(
            byte,
            byte & !STATE_MASK | STATE_IORESP_READY,
            Ordering::Release,
            Ordering::Relaxed,
        );
    }
}
