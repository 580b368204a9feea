//! The windows of a guard that are found without a lock.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::pins::Pins;
use crate::window::Window;

/// The first windows of a guard that were used, for finding them again without a lock.
#[derive(Debug, Default)]
pub(crate) struct WindowCache {
    slots: [Slot; WindowCache::SLOTS],
    /// How many slots are filled. A filled slot doesn't change until [`clear`](Self::clear).
    filled: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slot {
    start: AtomicU64,
    end: AtomicU64,
    local: AtomicPtr<u8>,
    writable: AtomicBool,
}

impl WindowCache {
    /// A request has its header, data, status and indirect table in as many places.
    const SLOTS: usize = 6;

    /// The local address of a range, if one window has all of it.
    #[inline]
    pub(crate) fn find(&self, addr: u64, len: usize, write: bool) -> Option<*mut u8> {
        let filled = self.filled.load(Ordering::Acquire);
        self.slots.iter().take(filled).find_map(|slot| {
            let (local, rest) = slot.get().find(addr, write)?;
            (len as u64 <= rest).then_some(local)
        })
    }

    /// Adds a window, if there is a slot left. The caller has the pins locked, so that there is one writer.
    pub(crate) fn add(&self, _pins: &mut Pins, window: Window) {
        let filled = self.filled.load(Ordering::Relaxed);
        if let Some(slot) = self.slots.get(filled) {
            slot.set(window);
            self.filled.store(filled + 1, Ordering::Release);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self.filled.get_mut() = 0;
    }
}

impl Slot {
    #[inline]
    fn get(&self) -> Window {
        Window {
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            local: self.local.load(Ordering::Relaxed),
            writable: self.writable.load(Ordering::Relaxed),
        }
    }

    fn set(&self, window: Window) {
        self.start.store(window.start, Ordering::Relaxed);
        self.end.store(window.end, Ordering::Relaxed);
        self.local.store(window.local, Ordering::Relaxed);
        self.writable.store(window.writable, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::null_mut;

    fn place(addr: usize) -> *mut u8 {
        null_mut::<u8>().wrapping_add(addr)
    }

    #[test]
    fn a_range_is_found_in_the_window_that_has_all_of_it() {
        let mut cache = WindowCache::default();
        cache.add(&mut Pins::default(), Window::new(0x1000, 0x1000, place(0x50_0000), false));
        cache.add(&mut Pins::default(), Window::new(0x3000, 0x2000, place(0x60_0000), true));
        assert_eq!(cache.find(0x1ffe, 2, false), Some(place(0x50_0ffe)));
        assert_eq!(cache.find(0x1ffe, 3, false), None);
        assert_eq!(cache.find(0xfff, 1, false), None);
        assert_eq!(cache.find(0x1000, 1, true), None, "read-only");
        assert_eq!(cache.find(0x3000, 0x2000, true), Some(place(0x60_0000)));
        assert_eq!(cache.find(0x3001, usize::MAX, true), None);
        cache.clear();
        assert_eq!(cache.find(0x3000, 1, false), None);
    }

    #[test]
    fn what_does_not_fit_is_not_remembered() {
        let cache = WindowCache::default();
        for n in 0..=WindowCache::SLOTS as u64 {
            cache.add(&mut Pins::default(), Window::new(n << 12, 0x1000, place(0x50_0000), true));
        }
        let found = |n: usize| cache.find((n as u64) << 12, 1, true).is_some();
        assert!((0..WindowCache::SLOTS).all(found));
        assert!(!found(WindowCache::SLOTS));
    }
}
