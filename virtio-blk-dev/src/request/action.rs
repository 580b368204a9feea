use super::kind::{RangeKind, RequestKind};
use super::status::Status;
use crate::device::Params;
use crate::sector::SECTOR_SIZE;

/// What to do for a valid request. Offsets are in bytes, within the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read { offset: u64 },
    Write { offset: u64 },
    Flush,
    Other(OtherAction),
}

/// What to do for a request that isn't on the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherAction {
    GetId,
    GetLifetime,
    /// The ranges are listed in the request's data.
    Ranges(RangeKind),
}

/// Checks a request by its type, its sector and the lengths of its data: `data_out` bytes follow the
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
        RequestKind::GetId => return Ok(Action::Other(OtherAction::GetId)),
        RequestKind::GetLifetime if limits.lifetime => {
            return Ok(Action::Other(OtherAction::GetLifetime));
        }
        RequestKind::GetLifetime | RequestKind::Other => return Err(Status::Unsupported),
        _ => {}
    }
    // §5.2.6.2: requests that would change a read-only device fail.
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
    let kind = range.ok_or(Status::Unsupported)?;
    Ok(Action::Other(OtherAction::Ranges(kind)))
}

/// The byte offset of a read or write.
///
/// Its `data` is a multiple of 512 bytes (virtio 1.2 §5.2.6). A request without data in the direction of
/// its type, because it has none or its buffers are marked for the other direction, is an error of the
/// driver, for which that clause has `IOERR`: with `OK` the driver would take data as transferred that
/// never was.
#[inline]
fn data_position(sector: u64, len: u64, capacity: u64) -> Result<u64, Status> {
    if len == 0 {
        return Err(Status::IoErr);
    }
    position(sector, len, capacity)
}

/// The byte offset of `sector`, if `len` bytes from there are whole sectors within the disk.
#[inline]
pub(crate) fn position(sector: u64, len: u64, capacity: u64) -> Result<u64, Status> {
    let offset = sector.checked_mul(SECTOR_SIZE).ok_or(Status::IoErr)?;
    let end = offset.checked_add(len).ok_or(Status::IoErr)?;
    if !len.is_multiple_of(SECTOR_SIZE) || end > capacity {
        return Err(Status::IoErr);
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use zerocopy::byteorder::little_endian::U32;

    use super::super::header::Header;
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
        assert_eq!(on(8), Ok(Action::Other(OtherAction::GetId)));
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
}
