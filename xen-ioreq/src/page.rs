//! The page that Xen shares with an IOREQ server: one slot for each vCPU.

use std::sync::atomic::Ordering;

use xen_foreignmem::{Mapping, PAGE_SIZE};

use crate::sys::{
    FLAG_DATA_IS_PTR, FLAG_READ, Ioreq, STATE_IOREQ_INPROCESS, STATE_IOREQ_READY,
    STATE_IORESP_READY, STATE_MASK,
};

/// How many vCPUs a page has slots for.
pub(crate) const SLOTS: usize = PAGE_SIZE / size_of::<Ioreq>();

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

    /// # Panics
    ///
    /// When `vcpu` has no slot. The server has checked the number of vCPUs against [`SLOTS`].
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

/// The request in a slot, copied once and not validated.
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

    /// Claims the request, if there is one: READY becomes INPROCESS.
    ///
    /// If the slot is already INPROCESS, a previous process died while it served the request, which is claimed, too.
    pub(crate) fn claim(&self) -> Option<RawRequest> {
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
                STATE_IOREQ_INPROCESS => return Some(self.copy(byte)),
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
    /// A slot in another state isn't changed. The state must only increase, or `wait_for_io` of
    /// `xen/common/ioreq.c` crashes the guest; and a response in an idle slot would block later requests.
    pub(crate) fn answer(&self, data: Option<u64>) {
        let byte = self.state.load(Ordering::Relaxed);
        if byte & STATE_MASK != STATE_IOREQ_INPROCESS {
            return;
        }
        if let Some(data) = data {
            self.data.store(data, Ordering::Relaxed);
        }
        // If this fails, the slot was put back to READY, and the request is served again.
        let _ = self.state.compare_exchange(
            byte,
            byte & !STATE_MASK | STATE_IORESP_READY,
            Ordering::Release,
            Ordering::Relaxed,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

    use super::*;
    use crate::sys::STATE_IOREQ_NONE;

    /// A slot in plain memory, where Miri can watch it.
    fn slot(state: u8) -> Ioreq {
        Ioreq {
            addr: AtomicU64::new(0x200_0000),
            data: AtomicU64::new(7),
            count: AtomicU32::new(1),
            size: AtomicU32::new(4),
            vp_eport: AtomicU32::new(9),
            pad: AtomicU16::new(0),
            state: AtomicU8::new(state),
            kind: AtomicU8::new(1),
        }
    }

    #[test]
    fn a_request_is_claimed_and_answered_with_its_flags_kept() {
        let slot = slot(STATE_IOREQ_READY | FLAG_READ | 1 << 6);
        let raw = slot.claim().unwrap();
        assert!(raw.is_read() && !raw.data_is_ptr());
        assert_eq!((raw.addr, raw.data, raw.count, raw.size, raw.kind), (0x200_0000, 7, 1, 4, 1));
        assert_eq!(slot.state.load(Ordering::Relaxed), STATE_IOREQ_INPROCESS | FLAG_READ | 1 << 6);
        slot.answer(Some(42));
        assert_eq!(slot.state.load(Ordering::Relaxed), STATE_IORESP_READY | FLAG_READ | 1 << 6);
        assert_eq!(slot.data.load(Ordering::Relaxed), 42);
    }

    #[test]
    fn there_is_nothing_to_claim_in_an_idle_or_answered_slot() {
        for state in [STATE_IOREQ_NONE, STATE_IORESP_READY, 4, STATE_MASK] {
            let slot = slot(state);
            assert_eq!(slot.claim(), None);
            assert_eq!(slot.state(), state);
        }
    }

    #[test]
    fn only_a_claimed_slot_is_answered() {
        for state in [STATE_IOREQ_NONE, STATE_IOREQ_READY, STATE_IORESP_READY, STATE_MASK] {
            let slot = slot(state);
            slot.answer(Some(42));
            assert_eq!((slot.state(), slot.data.load(Ordering::Relaxed)), (state, 7));
        }
    }

    #[test]
    fn a_slot_that_was_left_in_process_is_taken_over() {
        let slot = slot(STATE_IOREQ_INPROCESS);
        assert!(slot.claim().is_some());
        slot.answer(None);
        assert_eq!((slot.state(), slot.data.load(Ordering::Relaxed)), (STATE_IORESP_READY, 7));
    }

    #[test]
    fn data_goes_both_ways_between_threads() {
        let slot = slot(STATE_IOREQ_NONE);
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..rounds {
                    slot.addr.store(round, Ordering::Relaxed);
                    slot.state.store(STATE_IOREQ_READY, Ordering::Release);
                    while slot.state() != STATE_IORESP_READY {
                        std::thread::yield_now();
                    }
                    assert_eq!(slot.data.load(Ordering::Relaxed), round + 1);
                    slot.state.store(STATE_IOREQ_NONE, Ordering::Release);
                }
            });
            for round in 0..rounds {
                let raw = loop {
                    match slot.claim() {
                        Some(raw) => break raw,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(raw.addr, round);
                slot.answer(Some(round + 1));
            }
        });
    }
}
