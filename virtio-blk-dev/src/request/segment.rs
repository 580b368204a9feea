use virtio_dev::{Batch, Chain};
use vm_memory::{Address, GuestAddressSpace, GuestMemory, VolatileMemory};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::action::position;
use super::kind::RangeKind;
use super::range::Range;
use super::status::Status;
use crate::device::Params;
use crate::engine::Command;
use crate::sector::SECTOR_SIZE;

/// `struct virtio_blk_discard_write_zeroes` (virtio 1.2 §5.2.6).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Segment {
    sector: U64,
    num_sectors: U32,
    flags: U32,
}

/// The flag `unmap`; all others are reserved.
const UNMAP: u32 = 1;

impl Segment {
    pub(crate) const LEN: usize = size_of::<Self>();

    /// Copies the segment at `offset` of the device-readable bytes, once; `None` if it is not complete.
    #[inline]
    pub(crate) fn read<M: GuestMemory, D: GuestAddressSpace>(
        batch: &mut Batch<'_, M, D>,
        chain: &Chain<D>,
        offset: u64,
    ) -> Option<Self> {
        // The layout that drivers use: the list in one buffer, after that of the header.
        if let [header, list] = chain.readable()
            && let Some(at) = offset.checked_sub(header.len.into())
            && at.saturating_add(Self::LEN as u64) <= list.len.into()
            && let Some(addr) = list.addr.checked_add(at)
            && let Some(slice) = batch.plain_slice(chain, addr, Self::LEN)
            && let Ok(words) = slice.get_ref::<[u64; 2]>(0)
        {
            return Some(zerocopy::transmute!(words.load()));
        }
        let mut segment = Self::default();
        let copied = chain.copy_from(offset, segment.as_mut_bytes());
        matches!(copied, Ok(Self::LEN)).then_some(segment)
    }

    /// The number of segments in `len` bytes of data, if the request may have so many.
    pub(crate) fn count(kind: RangeKind, len: u64, params: &Params) -> Result<usize, Status> {
        let (_, max_seg) = kind.limits(params);
        let count = len.checked_div(Self::LEN as u64).unwrap_or(0);
        if count == 0 || !len.is_multiple_of(Self::LEN as u64) || count > max_seg.into() {
            return Err(Status::IoErr);
        }
        usize::try_from(count).map_err(|_| Status::IoErr)
    }

    /// Checks the segment, and converts it to bytes.
    pub(crate) fn range(&self, kind: RangeKind, params: &Params) -> Result<Range, Status> {
        let (sectors, flags) = (self.num_sectors.get(), self.flags.get());
        // §5.2.6.2: `UNSUPP` for unknown flags, and for `unmap` in a discard or secure erase.
        let command = match (kind, flags) {
            (RangeKind::Discard, 0) => Command::Discard,
            (RangeKind::SecureErase, 0) => Command::SecureErase,
            (RangeKind::WriteZeroes, 0 | UNMAP) => {
                // A hint: ignored where the storage can't deallocate.
                let may = params.limits.write_zeroes.is_some_and(|zeroes| zeroes.may_unmap);
                Command::WriteZeroes { unmap: flags == UNMAP && may }
            }
            _ => return Err(Status::Unsupported),
        };
        let (max_sectors, _) = kind.limits(params);
        if sectors > max_sectors {
            return Err(Status::IoErr);
        }
        let len = u64::from(sectors).saturating_mul(SECTOR_SIZE);
        let offset = position(self.sector.get(), len, params.live.capacity())?;
        Ok(Range { command, offset, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Limits, RangeLimits, ZeroesLimits};
    use crate::{BlockConfig, BlockDevice};

    fn params(may_unmap: bool) -> Params {
        let range = RangeLimits { max_sectors: 4, max_seg: 2, alignment_sectors: 1 };
        let config = BlockConfig {
            limits: Limits {
                discard: Some(range),
                write_zeroes: Some(ZeroesLimits { max_sectors: 3, max_seg: 1, may_unmap }),
                secure_erase: Some(range),
                lifetime: false,
            },
            ..BlockConfig::default()
        };
        BlockDevice::new(8 * 512, &config).unwrap().params()
    }

    fn segment(sector: u64, num_sectors: u32, flags: u32) -> Segment {
        Segment {
            sector: U64::new(sector),
            num_sectors: U32::new(num_sectors),
            flags: U32::new(flags),
        }
    }

    #[test]
    fn a_list_is_whole_segments_and_not_too_many() {
        let count = |kind, len| Segment::count(kind, len, &params(true));
        assert_eq!(count(RangeKind::Discard, 16), Ok(1));
        assert_eq!(count(RangeKind::Discard, 32), Ok(2));
        for len in [0, 1, 15, 17, 33, 48, u64::MAX, 1 << 63] {
            assert_eq!(count(RangeKind::Discard, len), Err(Status::IoErr), "{len} bytes");
        }
        assert_eq!(count(RangeKind::WriteZeroes, 32), Err(Status::IoErr));
    }

    #[test]
    fn ranges_lie_within_the_disk_and_the_limits() {
        let range =
            |sector, sectors| segment(sector, sectors, 0).range(RangeKind::Discard, &params(true));
        let command = Command::Discard;
        assert_eq!(range(6, 2), Ok(Range { command, offset: 3072, len: 1024 }));
        assert_eq!(range(8, 0), Ok(Range { command, offset: 4096, len: 0 }));
        for (sector, sectors) in
            [(6, 3), (0, 5), (9, 0), (u64::MAX, 1), (u64::MAX / 512, 1), (0, u32::MAX)]
        {
            assert_eq!(range(sector, sectors), Err(Status::IoErr), "{sectors} at {sector}");
        }
    }

    #[test]
    fn flags_are_those_that_a_command_has() {
        let of = |kind, flags| segment(0, 1, flags).range(kind, &params(true)).map(|r| r.command);
        let zeroes = |unmap| Ok(Command::WriteZeroes { unmap });
        assert_eq!(of(RangeKind::WriteZeroes, 0), zeroes(false));
        assert_eq!(of(RangeKind::WriteZeroes, 1), zeroes(true));
        for kind in [RangeKind::Discard, RangeKind::SecureErase] {
            assert_eq!(of(kind, 1), Err(Status::Unsupported));
        }
        for flags in [2, 3, 4, 0x8000_0000, u32::MAX] {
            for kind in [RangeKind::Discard, RangeKind::WriteZeroes, RangeKind::SecureErase] {
                assert_eq!(of(kind, flags), Err(Status::Unsupported), "{flags:#x}");
            }
        }
        let kept = segment(0, 1, 1).range(RangeKind::WriteZeroes, &params(false));
        assert_eq!(kept.map(|range| range.command), zeroes(false));
    }
}
