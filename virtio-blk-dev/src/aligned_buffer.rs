use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;

/// Memory that begins at an aligned address, for direct I/O.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is owned by this value, and by no thread.
unsafe impl Send for AlignedBuffer {}

impl AlignedBuffer {
    /// `len` zero bytes, at least one, at a multiple of `alignment`, a power of two.
    ///
    /// # Errors
    /// [`OutOfMemory`](io::ErrorKind::OutOfMemory), or [`InvalidInput`](io::ErrorKind::InvalidInput) for
    /// other arguments.
    pub(crate) fn new(len: usize, alignment: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(len, alignment).ok().filter(|_| len > 0);
        let layout = layout.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the size isn't zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        Ok(Self { start: start.ok_or(io::ErrorKind::OutOfMemory)?, layout })
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The memory. The caller may give [`start`](Self::start) to the kernel, but then mustn't call this
    /// until the kernel is done.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory is of this size, initialised, and this value's alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody uses it any more: whoever gives it to the
        // kernel leaks it rather than drop it before the kernel is done.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_of_its_length() {
        for (len, alignment) in [(1, 1), (512, 512), (3, 4096), (256 << 10, 4096)] {
            let mut buffer = AlignedBuffer::new(len, alignment).unwrap();
            assert!(buffer.start().addr().get().is_multiple_of(alignment));
            assert!(buffer.bytes().len() == len && buffer.bytes().iter().all(|byte| *byte == 0));
            buffer.bytes().fill(1);
        }
    }

    #[test]
    fn what_no_allocation_can_have_is_an_error() {
        for (len, alignment) in [(0, 512), (512, 0), (512, 24), (usize::MAX, 4096)] {
            let error = AlignedBuffer::new(len, alignment).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
