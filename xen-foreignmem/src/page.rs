//! Xen's pages.

/// The size of Xen's pages, and so of frames and grants, whatever dom0's kernel uses.
pub const PAGE_SIZE: usize = 4096;
