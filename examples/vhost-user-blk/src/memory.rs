//! The guest's memory, as the frontend shares it.

use std::{fs::File, io, sync::Arc};

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};

/// A memory table that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("the region at guest address {0:#x} is longer than the file that was sent for it")]
    ShortFile(u64),
    #[error("the region at guest address {addr:#x} can't be mapped")]
    Map { addr: u64, source: vhost::vhost_user::Error },
    #[error(
        "the file of the region at guest address {addr:#x} can't be asked for its size (fstat)"
    )]
    File { addr: u64, source: io::Error },
    #[error(
        "the region at guest address {addr:#x} of {len} bytes can't be added to or removed from the memory table"
    )]
    Region { addr: u64, len: u64, source: vm_memory::GuestRegionCollectionError },
}

/// A memory table: where the guest's addresses are mapped here, and which addresses of the
/// frontend's own process they have, as that is how it names rings.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    map: Arc<GuestMemoryMmap>,
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    frontend: u64,
    guest: u64,
    len: u64,
}

impl Memory {
    /// The mapping, in guest addresses.
    pub(crate) fn map(&self) -> &Arc<GuestMemoryMmap> {
        &self.map
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// This table and one more region, mapped from `file`.
    pub(crate) fn with(
        &self,
        region: &VhostUserMemoryRegion,
        file: File,
    ) -> Result<Self, MemoryError> {
        let (addr, len) = (region.guest_phys_addr, region.memory_size);
        let size = file.metadata().map_err(|source| MemoryError::File { addr, source })?;
        // A page beyond the file's end would be a SIGBUS when it is touched.
        let end = region.mmap_offset.saturating_add(len);
        if size.is_file() && size.len() < end {
            return Err(MemoryError::ShortFile(addr));
        }
        let mapping =
            region.mmap_region(file).map_err(|source| MemoryError::Map { addr, source })?;
        let failed = |source| MemoryError::Region { addr, len, source };
        let mapped = GuestRegionMmap::new(mapping, GuestAddress(addr))
            .ok_or_else(|| failed(vm_memory::GuestRegionCollectionError::MemoryRegionOverlap))?;
        let map = self.map.insert_region(Arc::new(mapped)).map_err(failed)?;
        let mut spans = self.spans.clone();
        spans.push(Span { frontend: region.user_addr, guest: addr, len });
        Ok(Self { map: Arc::new(map), spans })
    }

    /// This table less one region.
    pub(crate) fn without(&self, region: &VhostUserMemoryRegion) -> Result<Self, MemoryError> {
        let (addr, len) = (region.guest_phys_addr, region.memory_size);
        let (map, _) = self
            .map
            .remove_region(GuestAddress(addr), len)
            .map_err(|source| MemoryError::Region { addr, len, source })?;
        let spans = self.spans.iter().copied().filter(|span| span.guest != addr).collect();
        Ok(Self { map: Arc::new(map), spans })
    }

    /// The guest address of an address of the frontend's process.
    pub(crate) fn guest_address(&self, frontend: u64) -> Option<u64> {
        self.spans.iter().find_map(|span| {
            let offset = frontend.checked_sub(span.frontend)?;
            (offset < span.len).then(|| span.guest.checked_add(offset)).flatten()
        })
    }

    /// Regions and bytes, for the log.
    pub(crate) fn extent(&self) -> (usize, u64) {
        (self.spans.len(), self.map.iter().map(GuestMemoryRegion::len).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    fn region(guest: u64, len: u64, frontend: u64) -> VhostUserMemoryRegion {
        VhostUserMemoryRegion::new(guest, len, frontend, 0)
    }

    #[test]
    fn addresses_of_the_frontend_are_found_in_any_region() {
        let memory = Memory::default()
            .with(&region(0x10_0000, 0x2000, 0x7000_0000), file(0x2000))
            .and_then(|memory| memory.with(&region(0, 0x1000, 0x9000_0000), file(0x1000)))
            .unwrap();
        for (frontend, guest) in [
            (0x7000_0000, Some(0x10_0000)),
            (0x7000_1fff, Some(0x10_1fff)),
            (0x7000_2000, None),
            (0x9000_0010, Some(0x10)),
            (0x6fff_ffff, None),
            (u64::MAX, None),
        ] {
            assert_eq!(memory.guest_address(frontend), guest, "{frontend:#x}");
        }
        assert_eq!(memory.extent(), (2, 0x3000));
        let less = memory.without(&region(0x10_0000, 0x2000, 0)).unwrap();
        assert_eq!((less.guest_address(0x7000_0000), less.extent()), (None, (1, 0x1000)));
    }

    #[test]
    fn a_table_that_would_fault_or_overlap_is_refused() {
        let memory = Memory::default().with(&region(0, 0x2000, 0), file(0x2000)).unwrap();
        let short = memory.with(&region(0x1_0000, 0x2000, 0), file(0x1000));
        assert!(matches!(short, Err(MemoryError::ShortFile(0x1_0000))));
        let double = memory.with(&region(0x1000, 0x1000, 0), file(0x1000));
        assert!(matches!(double, Err(MemoryError::Region { addr: 0x1000, .. })));
        assert!(memory.without(&region(0, 0x1000, 0)).is_err());
    }
}
