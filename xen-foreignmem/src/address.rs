//! What a virtio address of a guest on Xen means.

use vm_memory::{GuestAddress, GuestMemoryResult};

use crate::page::PAGE_SIZE;
use crate::physical::invalid_address;

/// The bit that tells a grant from RAM (`XEN_GRANT_DMA_ADDR_OFF` of Linux, as `xen,grant-dma` in
/// its device-tree bindings asks for).
pub const GRANT_BIT: u64 = 1 << 63;

/// A non-empty range of a guest's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Guest-physical, `end` exclusive and below [`GRANT_BIT`].
    Ram { start: u64, end: u64 },
    /// From `offset` on in the page granted as `first`, over that and the next references.
    Grants { first: u32, offset: usize, pages: usize },
}

impl Place {
    /// Sorts `count` bytes, at least one, from `addr` on.
    pub(crate) fn of(addr: GuestAddress, count: usize) -> GuestMemoryResult<Self> {
        let start = addr.0 & !GRANT_BIT;
        let end = start.checked_add(count as u64).filter(|&end| end <= GRANT_BIT);
        let end = end.ok_or(invalid_address(addr))?;
        if addr.0 & GRANT_BIT == 0 {
            return Ok(Self::Ram { start, end });
        }
        let page = PAGE_SIZE as u64;
        match (u32::try_from(start / page), u32::try_from((end - 1) / page)) {
            (Ok(first), Ok(last)) => Ok(Self::Grants {
                first,
                offset: (start % page) as usize,
                pages: (last - first) as usize + 1,
            }),
            _ => Err(invalid_address(addr)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(addr: u64, count: usize) -> Option<(u32, usize, usize)> {
        match Place::of(GuestAddress(GRANT_BIT | addr), count) {
            Ok(Place::Grants { first, offset, pages }) => Some((first, offset, pages)),
            Ok(Place::Ram { .. }) => panic!("a grant was taken for RAM"),
            Err(_) => None,
        }
    }

    #[test]
    fn bit_63_is_a_grant_and_its_pages_are_consecutive_references() {
        assert_eq!(grants(8 << 12, 1), Some((8, 0, 1)));
        assert_eq!(grants(8 << 12 | 0xfff, 1), Some((8, 0xfff, 1)));
        assert_eq!(grants(8 << 12 | 0xfff, 2), Some((8, 0xfff, 2)));
        assert_eq!(grants(8 << 12 | 0xff0, 0x1011), Some((8, 0xff0, 3)));
    }

    #[test]
    fn references_end_at_u32() {
        let last = u64::from(u32::MAX) << 12;
        assert_eq!(grants(last, 4096), Some((u32::MAX, 0, 1)));
        assert_eq!(grants(last, 4097), None);
        assert_eq!(grants(1 << 44, 1), None);
        assert_eq!(grants(GRANT_BIT - 1, 1), None);
        assert_eq!(grants(0, usize::MAX), None);
    }

    #[test]
    fn ram_ends_below_bit_63() {
        let ram = |addr, count| Place::of(GuestAddress(addr), count).ok();
        assert_eq!(ram(5, 7), Some(Place::Ram { start: 5, end: 12 }));
        assert_eq!(
            ram(GRANT_BIT - 4, 4),
            Some(Place::Ram { start: GRANT_BIT - 4, end: GRANT_BIT })
        );
        assert_eq!(ram(GRANT_BIT - 4, 5), None);
        assert_eq!(ram(1, usize::MAX), None);
    }
}
