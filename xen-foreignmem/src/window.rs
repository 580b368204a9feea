//! Guest addresses that are mapped in one piece.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::pins::Pins;

/// Consecutive guest addresses, bit 63 included, at consecutive local ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    start: u64,
    end: u64,
    local: *mut u8,
    writable: bool,
}

impl Window {
    /// `len` bytes from `start` on, at `local`. The end must not pass the last address.
    pub(crate) fn new(start: u64, len: usize, local: *mut u8, writable: bool) -> Self {
        Self { start, end: start + len as u64, local, writable }
    }

    /// Where `addr` is, and how many bytes there are from there on; None if it is not in here.
    pub(crate) fn find(&self, addr: u64, write: bool) -> Option<(*mut u8, u64)> {
        let inside = self.start <= addr && addr < self.end && (self.writable || !write);
        // The offset is less than the window's length, so no pointer leaves the mapping.
        inside.then(|| (self.local.wrapping_add((addr - self.start) as usize), self.end - addr))
    }
}

/// The windows that were looked into first, for looking again without a lock.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    slots: [Slot; Windows::SLOTS],
    /// How many slots are filled. They don't change any more.
    filled: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slot {
    start: AtomicU64,
    end: AtomicU64,
    local: AtomicPtr<u8>,
    writable: AtomicBool,
}

impl Windows {
    /// A request has its header, data, status and indirect table in as many places.
    const SLOTS: usize = 6;

    /// Where all of a range is, if a window has it.
    #[inline]
    pub(crate) fn find(&self, addr: u64, len: usize, write: bool) -> Option<*mut u8> {
        let filled = self.filled.load(Ordering::Acquire);
        self.slots.iter().take(filled).find_map(|slot| {
            let (local, rest) = slot.get().find(addr, write)?;
            (len as u64 <= rest).then_some(local)
        })
    }

    /// Remembers a window, if there is a slot left. Holding the pins, there is no other who adds.
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
        let mut windows = Windows::default();
        windows.add(&mut Pins::default(), Window::new(0x1000, 0x1000, place(0x50_0000), false));
        windows.add(&mut Pins::default(), Window::new(0x3000, 0x2000, place(0x60_0000), true));
        assert_eq!(windows.find(0x1ffe, 2, false), Some(place(0x50_0ffe)));
        assert_eq!(windows.find(0x1ffe, 3, false), None);
        assert_eq!(windows.find(0xfff, 1, false), None);
        assert_eq!(windows.find(0x1000, 1, true), None, "read-only");
        assert_eq!(windows.find(0x3000, 0x2000, true), Some(place(0x60_0000)));
        assert_eq!(windows.find(0x3001, usize::MAX, true), None);
        windows.clear();
        assert_eq!(windows.find(0x3000, 1, false), None);
    }

    #[test]
    fn what_does_not_fit_is_not_remembered() {
        let windows = Windows::default();
        for n in 0..=Windows::SLOTS as u64 {
            windows.add(&mut Pins::default(), Window::new(n << 12, 0x1000, place(0x50_0000), true));
        }
        let found = |n: usize| windows.find((n as u64) << 12, 1, true).is_some();
        assert!((0..Windows::SLOTS).all(found));
        assert!(!found(Windows::SLOTS));
    }
}
