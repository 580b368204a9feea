use virtio_mmio_dev::{Batch, Chain};
use vm_memory::{GuestAddressSpace, GuestMemory, VolatileMemory};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ranges::RangeKind;
use crate::device::Params;
use crate::device::SECTOR_SIZE;
use crate::image::Lifetime;

/// What a request asked for, as statistics and errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// `VIRTIO_BLK_T_IN`.
    Read,
    /// `VIRTIO_BLK_T_OUT`.
    Write,
    /// `VIRTIO_BLK_T_FLUSH`.
    Flush,
    /// `VIRTIO_BLK_T_GET_ID`.
    GetId,
    /// `VIRTIO_BLK_T_GET_LIFETIME`.
    GetLifetime,
    /// `VIRTIO_BLK_T_DISCARD`.
    Discard,
    /// `VIRTIO_BLK_T_WRITE_ZEROES`.
    WriteZeroes,
    /// `VIRTIO_BLK_T_SECURE_ERASE`.
    SecureErase,
    /// Any other type, or a request whose header is missing or can't be read.
    Other,
}

impl RequestKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::GetId,
        Self::GetLifetime,
        Self::Discard,
        Self::WriteZeroes,
        Self::SecureErase,
        Self::Other,
    ];

    /// Its name, as statistics have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::GetId => "get_id",
            Self::GetLifetime => "get_lifetime",
            Self::Discard => "discard",
            Self::WriteZeroes => "write_zeroes",
            Self::SecureErase => "secure_erase",
            Self::Other => "other",
        }
    }
}

/// The status byte that ends every request (virtio 1.2 §5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    Ok = 0,
    IoErr = 1,
    Unsupported = 2,
}

/// The start of `struct virtio_blk_req` (virtio 1.2 §5.2.6).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) kind: U32,
    pub(crate) reserved: U32,
    pub(crate) sector: U64,
}

impl Header {
    pub(crate) const LEN: usize = size_of::<Self>();

    /// The header of a request, copied once; `None` if there isn't all of it.
    #[inline(always)]
    pub(crate) fn read<M: GuestMemory, D: GuestAddressSpace>(
        batch: &mut Batch<'_, M, D>,
        chain: &Chain<D>,
    ) -> Option<Self> {
        if let Some(first) = chain.readable().first().filter(|first| first.len >= Self::LEN as u32)
            && let Some(slice) = batch.plain_slice(chain, first.addr, Self::LEN)
            && let Ok(words) = slice.get_ref::<[u64; 2]>(0)
        {
            return Some(zerocopy::transmute!(words.load()));
        }
        Self::copy(chain)
    }

    /// As [`read`](Self::read), wherever the header lies.
    #[inline(never)]
    fn copy<D: GuestAddressSpace>(chain: &Chain<D>) -> Option<Self> {
        let mut header = Self::default();
        let copied = chain.copy_from(0, header.as_mut_bytes());
        matches!(copied, Ok(Self::LEN)).then_some(header)
    }

    pub(crate) fn kind(&self) -> RequestKind {
        match self.kind.get() {
            0 => RequestKind::Read,
            1 => RequestKind::Write,
            4 => RequestKind::Flush,
            8 => RequestKind::GetId,
            10 => RequestKind::GetLifetime,
            11 => RequestKind::Discard,
            13 => RequestKind::WriteZeroes,
            14 => RequestKind::SecureErase,
            _ => RequestKind::Other,
        }
    }
}

/// A request that may be carried out: positions and lengths in bytes, within the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read {
        offset: u64,
    },
    Write {
        offset: u64,
    },
    Flush,
    GetId,
    GetLifetime,
    /// What it is about stands in its data.
    Ranges(RangeKind),
}

/// Decides over a request by its type, sector and the lengths of its data: `data_out` bytes follow the
/// header, `data_in` bytes precede the status.
#[inline]
pub(crate) fn decide(
    kind: RequestKind,
    sector: u64,
    data_out: u64,
    data_in: u64,
    params: &Params,
) -> Result<Action, Status> {
    let limits = &params.limits;
    match kind {
        RequestKind::Read => {
            let offset = data_position(sector, data_in, params.live.capacity())?;
            return Ok(Action::Read { offset });
        }
        RequestKind::Flush => return Ok(Action::Flush),
        RequestKind::GetId => return Ok(Action::GetId),
        RequestKind::GetLifetime if limits.lifetime => return Ok(Action::GetLifetime),
        RequestKind::GetLifetime | RequestKind::Other => return Err(Status::Unsupported),
        _ => {}
    }
    // §5.2.6.2: whatever would change a read-only device fails and changes nothing.
    if params.read_only {
        return Err(Status::IoErr);
    }
    let range = match kind {
        RequestKind::Write => {
            let offset = data_position(sector, data_out, params.live.capacity())?;
            return Ok(Action::Write { offset });
        }
        RequestKind::Discard => limits.discard.map(|_| RangeKind::Discard),
        RequestKind::WriteZeroes => limits.write_zeroes.map(|_| RangeKind::WriteZeroes),
        _ => limits.secure_erase.map(|_| RangeKind::SecureErase),
    };
    range.map(Action::Ranges).ok_or(Status::Unsupported)
}

/// The byte position of a read's or a write's data.
///
/// Such a request moves `data`, in multiples of 512 bytes (virtio 1.2 §5.2.6). One that has none in
/// the direction of its type, be it that there is none or that its buffers are marked for the other
/// direction, is an error of its driver, for which that clause has `IOERR`: `OK` would tell the driver
/// that a buffer holds, or the disk has got, what was never moved.
#[inline]
fn data_position(sector: u64, len: u64, capacity: u64) -> Result<u64, Status> {
    if len == 0 {
        return Err(Status::IoErr);
    }
    position(sector, len, capacity)
}

/// The byte position of `sector`, if `len` bytes from there are whole sectors of the disk.
#[inline]
pub(crate) fn position(sector: u64, len: u64, capacity: u64) -> Result<u64, Status> {
    let offset = sector.checked_mul(SECTOR_SIZE).ok_or(Status::IoErr)?;
    let end = offset.checked_add(len).ok_or(Status::IoErr)?;
    if !len.is_multiple_of(SECTOR_SIZE) || end > capacity {
        return Err(Status::IoErr);
    }
    Ok(offset)
}

/// Bytes known to be written from the first device-writable byte on: what a used entry may claim
/// (virtio 1.2 §2.7.8.2: at least `len` bytes *were* written, beginning at the first
/// device-writable buffer; more may have been).
///
/// `data_in` bytes precede the status byte, which is always written; the first `written` of them
/// are known to be. So a read claims data and status, a write or flush the status alone, and a
/// failed read, whose data is in doubt, nothing.
pub(crate) fn used_len(data_in: u64, written: u64) -> u32 {
    let len = if written >= data_in { data_in.saturating_add(1) } else { written };
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// `struct virtio_blk_lifetime` (virtio 1.2 §5.2.6). A storage may say what the guest must never
/// see (§5.2.6.2): reserved values become the one for "undefined".
pub(crate) fn lifetime_bytes(lifetime: &Lifetime) -> [u8; 6] {
    let defined = |value: u16, greatest| if value > greatest { 0 } else { value }.to_le_bytes();
    let [a, b] = defined(lifetime.pre_eol_info, 3);
    let [c, d] = defined(lifetime.device_lifetime_est_typ_a, 11);
    let [e, f] = defined(lifetime.device_lifetime_est_typ_b, 11);
    [a, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockConfig, BlockDevice};

    fn header(kind: u32) -> Header {
        Header { kind: U32::new(kind), ..Header::default() }
    }

    fn params(read_only: bool) -> Params {
        let config = BlockConfig { read_only, ..BlockConfig::default() };
        BlockDevice::new(8 * 512, &config).unwrap().params()
    }

    #[test]
    fn positions_are_checked_with_overflow() {
        let read = |sector, len| decide(RequestKind::Read, sector, 0, len, &params(false));
        assert_eq!(read(7, 512), Ok(Action::Read { offset: 7 * 512 }));
        assert_eq!(read(0, 8 * 512), Ok(Action::Read { offset: 0 }));
        assert_eq!(position(8, 0, 8 * 512), Ok(8 * 512));
        for (sector, len) in [
            (7, 0),
            (8, 512),
            (7, 1024),
            (9, 0),
            (0, 511),
            (0, 1),
            (u64::MAX, 512),
            (u64::MAX / 512, 512),
            (u64::MAX / 512 + 1, 512),
            (1 << 55, 512),
        ] {
            assert_eq!(read(sector, len), Err(Status::IoErr), "sector {sector}, {len} bytes");
        }
    }

    #[test]
    fn a_write_is_measured_by_what_the_device_reads() {
        let write = |out, data_in| decide(RequestKind::Write, 7, out, data_in, &params(false));
        assert_eq!(write(512, 4096), Ok(Action::Write { offset: 7 * 512 }));
        assert_eq!(write(1024, 512), Err(Status::IoErr));
        assert_eq!(write(0, 512), Err(Status::IoErr), "its data is where the device writes");
    }

    #[test]
    fn a_read_only_disk_refuses_writes_and_serves_the_rest() {
        let on = |kind| decide(header(kind).kind(), 0, 512, 512, &params(true));
        for kind in [1, 11, 13, 14] {
            assert_eq!(on(kind), Err(Status::IoErr), "type {kind}");
        }
        assert_eq!(on(0), Ok(Action::Read { offset: 0 }));
        assert_eq!(on(4), Ok(Action::Flush));
        assert_eq!(on(8), Ok(Action::GetId));
    }

    #[test]
    fn unknown_types_are_unsupported() {
        // Those that aren't offered are as unknown as the others.
        for kind in [2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 0x8000_0000, u32::MAX] {
            assert_eq!(
                decide(header(kind).kind(), 0, 0, 512, &params(false)),
                Err(Status::Unsupported)
            );
        }
    }

    #[test]
    fn used_len_is_never_overstated() {
        assert_eq!(used_len(512, 512), 513);
        assert_eq!(used_len(0, 0), 1);
        assert_eq!(used_len(512, 0), 0);
        assert_eq!(used_len(64, 20), 20);
        assert_eq!(used_len(u64::from(u32::MAX), u64::from(u32::MAX)), u32::MAX);
    }
}
