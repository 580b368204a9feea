//! The atomics that order what device and driver do: the standard library's, or loom's, for the
//! model in `tests/loom.rs`.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, fence};

/// Guest addresses whose value is an atomic of loom's, instead of memory.
#[cfg(loom)]
pub mod cells {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use loom::sync::atomic::{AtomicU64, Ordering};

    thread_local! {
        // All threads of a model run on the one that started it.
        static CELLS: RefCell<BTreeMap<u64, Rc<AtomicU64>>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Forgets every cell, and makes one of each of these addresses.
    pub fn make(addresses: impl IntoIterator<Item = u64>) {
        let cells = addresses.into_iter().map(|addr| (addr, Rc::new(AtomicU64::new(0))));
        CELLS.set(cells.collect());
    }

    /// The value at `addr`, if a cell is there.
    pub fn load(addr: u64, order: Ordering) -> Option<u64> {
        // Not borrowed while loom runs another thread.
        let cell = CELLS.with_borrow(|cells| cells.get(&addr).cloned())?;
        Some(cell.load(order))
    }

    /// Sets the value at `addr`, if a cell is there; whether one is.
    pub fn store(addr: u64, value: u64, order: Ordering) -> bool {
        let cell = CELLS.with_borrow(|cells| cells.get(&addr).cloned());
        cell.is_some_and(|cell| {
            cell.store(value, order);
            true
        })
    }
}
