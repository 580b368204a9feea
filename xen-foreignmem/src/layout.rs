//! Where a guest has RAM, and how it is mapped.

use std::ops::Range;

use crate::address::GRANT_BIT;
use crate::page::PAGE_SIZE;

/// Where a guest's RAM may be, and how much of it is mapped at a time.
///
/// The banks are bounds: whether the guest has a frame in them is found when it is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    banks: Vec<Range<u64>>,
    chunk_size: u64,
    budget: Option<u64>,
    copy_max: usize,
    bounce_pages: usize,
    grants_per_guard: usize,
}

/// A [`Layout`] that isn't valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A bank is empty, not of whole pages, reaches bit 63, or overlaps another.
    #[error("RAM bank {0:#x?} is empty, unaligned, too high or overlaps another")]
    Bank(Range<u64>),
    /// The chunk size is no power of two from a page up.
    #[error("chunk size {0} is not a power of two of at least a page")]
    ChunkSize(u64),
}

const GIB: u64 = 1 << 30;

impl Layout {
    /// An Arm guest: `GUEST_RAM0` and `GUEST_RAM1` of `xen/include/public/arch-arm.h`.
    pub fn arm() -> Self {
        Self::of(vec![GIB..4 * GIB, 8 * GIB..1024 * GIB])
    }

    /// An x86 HVM or PVH guest: below the MMIO hole (`HVM_BELOW_4G_RAM_END` of
    /// `xen/include/public/hvm/e820.h`) and above 4 GiB.
    pub fn x86() -> Self {
        Self::of(vec![0..0xf000_0000, 4 * GIB..1024 * GIB])
    }

    /// A guest with RAM in these ranges of addresses.
    ///
    /// # Errors
    ///
    /// Ranges that are no banks.
    pub fn with_banks(banks: impl IntoIterator<Item = Range<u64>>) -> Result<Self, LayoutError> {
        let mut banks: Vec<_> = banks.into_iter().collect();
        banks.sort_by_key(|bank| bank.start);
        let mut previous_end = 0;
        for bank in &banks {
            let page = PAGE_SIZE as u64;
            let aligned = bank.start.is_multiple_of(page) && bank.end.is_multiple_of(page);
            if !aligned || bank.is_empty() || bank.start < previous_end || bank.end > GRANT_BIT {
                return Err(LayoutError::Bank(bank.clone()));
            }
            previous_end = bank.end;
        }
        Ok(Self::of(banks))
    }

    fn of(banks: Vec<Range<u64>>) -> Self {
        Self {
            banks,
            chunk_size: 2 << 20,
            budget: None,
            copy_max: 4 << 20,
            bounce_pages: 1024,
            grants_per_guard: 16384,
        }
    }

    /// Sets how much RAM is mapped at a time: a power of two, 2 MiB by default.
    ///
    /// The cost of mapping is per page, so a larger chunk makes its first access slower and later ones no
    /// faster; smaller chunks mean more mappings to search.
    ///
    /// # Errors
    ///
    /// Less than a page or no power of two.
    pub fn chunk_size(mut self, bytes: u64) -> Result<Self, LayoutError> {
        if !bytes.is_power_of_two() || bytes < PAGE_SIZE as u64 {
            return Err(LayoutError::ChunkSize(bytes));
        }
        self.chunk_size = bytes;
        Ok(self)
    }

    /// Sets how much RAM is mapped at most, in bytes, each mapping in whole pages of the kernel; unlimited by
    /// default.
    ///
    /// Three quarters are for chunks. When they are used up, the least recently used chunk that no guard holds
    /// is unmapped (uses between two mappings of chunks count as simultaneous). When guards hold all chunks,
    /// the pages of an access are mapped individually and not cached, from the last quarter. When that is used
    /// up, too, the access fails: it can't wait for other requests, as they may need the same thread. Rings,
    /// whose number is that of the queues, and the first page of an access are not counted.
    pub fn budget(mut self, bytes: u64) -> Self {
        self.budget = Some(bytes);
        self
    }

    /// Sets the longest range of granted memory that a request copies instead of mapping it: 4 MiB by default;
    /// 0 for never.
    ///
    /// Of a page, a copy costs about 3900 instructions (3100 of them Xen's), a mapping with its end 6300, counted
    /// on Arm: so mapping pays for no range, and is for those that the pages for copies have no room for.
    pub fn copy_max(mut self, bytes: usize) -> Self {
        self.copy_max = bytes;
        self
    }

    /// Sets how many pages each [`Requests`](crate::Requests) has for copies in flight: 1024 by default, which is
    /// 4 MiB, and as many places of 64 bytes for short ranges. They take memory once they were used. When they
    /// are used up, or no free ones lie side by side as a range takes them, grants are mapped instead.
    pub fn bounce_pages(mut self, pages: usize) -> Self {
        self.bounce_pages = pages;
        self
    }

    /// Sets how many grants one guard maps at most: 16384 by default.
    pub fn grants_per_guard(mut self, grants: usize) -> Self {
        self.grants_per_guard = grants;
        self
    }

    /// The ranges of addresses that may be RAM, in ascending order.
    pub fn banks(&self) -> &[Range<u64>] {
        &self.banks
    }

    /// The bank that has all of a range.
    pub(crate) fn bank(&self, start: u64, end: u64) -> Option<&Range<u64>> {
        self.banks.iter().find(|bank| bank.start <= start && end <= bank.end)
    }

    /// The chunk an address of RAM is in: aligned to the chunk size, but cut to its bank.
    pub(crate) fn chunk_of(&self, addr: u64) -> Option<Range<u64>> {
        let bank = self.banks.iter().find(|bank| bank.contains(&addr))?;
        let start = addr & !(self.chunk_size - 1);
        // Below bit 63, by the banks, but for a chunk size that reaches it.
        let end = start.saturating_add(self.chunk_size);
        Some(start.max(bank.start)..end.min(bank.end))
    }

    /// The pages of a non-empty range in a bank: as many of the first as a chunk has at the most, and as
    /// `room` bytes have.
    pub(crate) fn pages_of(&self, range: &Range<u64>, room: u64) -> Range<u64> {
        let page = PAGE_SIZE as u64;
        let whole_pages = !(page - 1);
        let start = range.start & whole_pages;
        // Banks are of whole pages and end below bit 63.
        let end = range.end.next_multiple_of(page);
        start..end.min(start.saturating_add(self.chunk_size.min(room & whole_pages)))
    }

    pub(crate) fn chunk_number(&self, addr: u64) -> u64 {
        addr >> self.chunk_size.trailing_zeros()
    }

    pub(crate) fn budget_bytes(&self) -> Option<u64> {
        self.budget
    }

    pub(crate) fn copy_max_bytes(&self) -> usize {
        self.copy_max
    }

    pub(crate) fn bounce_page_count(&self) -> usize {
        self.bounce_pages
    }

    pub(crate) fn max_grants(&self) -> usize {
        self.grants_per_guard
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self::arm()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_aligned_and_cut_to_their_bank() {
        let layout = Layout::with_banks([0x3000..0x9000, 0xa000..0x1_0000]).unwrap();
        let layout = layout.chunk_size(0x4000).unwrap();
        assert_eq!(layout.chunk_of(0x3000), Some(0x3000..0x4000));
        assert_eq!(layout.chunk_of(0x7fff), Some(0x4000..0x8000));
        assert_eq!(layout.chunk_of(0x8000), Some(0x8000..0x9000));
        assert_eq!(layout.chunk_of(0x9000), None);
        assert_eq!(layout.chunk_of(0xa001), Some(0xa000..0xc000));
        let whole = layout.chunk_size(1 << 63).unwrap();
        assert_eq!(whole.chunk_of(0xa001), Some(0xa000..0x1_0000));
    }

    #[test]
    fn nonsense_is_refused() {
        for bank in [0x1000..0x1000, 0x800..0x2000, 0x1000..0x1001, 0x1000..GRANT_BIT + 0x1000] {
            assert_eq!(Layout::with_banks([bank.clone()]), Err(LayoutError::Bank(bank)));
        }
        let overlap = Layout::with_banks([0x2000..0x4000, 0x1000..0x3000]);
        assert_eq!(overlap, Err(LayoutError::Bank(0x2000..0x4000)));
        for size in [0, 2048, 0x3000] {
            assert_eq!(Layout::arm().chunk_size(size), Err(LayoutError::ChunkSize(size)));
        }
    }
}
