//! Mappings that are out of use.

use std::sync::Arc;

use crate::chunk::Chunk;

/// Mappings of RAM that were taken out of use, and stay until this is dropped.
///
/// Unmapping takes a hypercall for each page, and the guest's vCPU waits for the answer to its INVALIDATE: so
/// answer first, and drop this afterwards, on a thread that no vCPU waits for. Xen can free the memory that the
/// guest has given up when the last mapping of it, here or in a guard, is removed.
#[derive(Debug, Default)]
#[must_use = "dropping it unmaps: answer the guest's INVALIDATE before"]
pub struct Retired {
    chunks: Vec<Arc<Chunk>>,
}

impl Retired {
    pub(crate) fn new(chunks: Vec<Arc<Chunk>>) -> Self {
        Self { chunks }
    }

    /// Whether there is nothing to unmap.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes of guest memory that were taken out of use.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes()).sum()
    }
}
