//! Guest addresses that are mapped in one piece.

/// Consecutive guest addresses, bit 63 included, at consecutive local ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) local: *mut u8,
    pub(crate) writable: bool,
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
