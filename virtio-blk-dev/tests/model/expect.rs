use virtio_blk_dev::{Lifetime, Limits};

use crate::common::*;
use crate::disk::{SECTOR, Sector};
use crate::request::Request;
use crate::{SECTORS, SERIAL};

pub const WEAR: Lifetime =
    Lifetime { pre_eol_info: 1, device_lifetime_est_typ_a: 2, device_lifetime_est_typ_b: 11 };

/// What a request does to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    /// Reads from this sector on.
    Reads(u64),
    /// Leaves these contents in these sectors; `None` is anything.
    Changes(Vec<(usize, Option<Sector>)>),
    /// The device gives this much of this data.
    Tells(Vec<u8>),
}

/// How a request must be answered: no matter what the disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// `None`: there is no place for it.
    pub status: Option<u8>,
    pub len: u32,
    pub effect: Effect,
    /// Bytes of the writable stream before the status.
    pub data_in: usize,
}

/// The device, as plainly as it can be said.
pub struct Rules {
    pub read_only: bool,
    pub limits: Limits,
}

impl Rules {
    pub fn expect(&self, request: &Request) -> Expected {
        let mut data_in = request.data_in;
        if !request.status {
            // The last byte of the data is the status' place, if there is one.
            let Some(rest) = data_in.checked_sub(1) else {
                return Expected { status: None, len: 0, effect: Effect::Nothing, data_in };
            };
            data_in = rest;
        }
        let outcome =
            if request.cut_header > 0 { Err(IOERR) } else { self.carry_out(request, data_in) };
        let (status, effect) = match outcome {
            Ok(effect) => (OK, effect),
            Err(status) => (status, Effect::Nothing),
        };
        let written = match &effect {
            Effect::Reads(_) => data_in,
            Effect::Tells(data) => data.len(),
            _ => 0,
        };
        let len = if written == data_in { written + 1 } else { written };
        Expected { status: Some(status), len: len as u32, effect, data_in }
    }

    fn carry_out(&self, request: &Request, data_in: usize) -> Result<Effect, u8> {
        let lost = |len: usize| if request.lost && len > 0 { Err(IOERR) } else { Ok(()) };
        let tell = |data: &[u8]| {
            lost(data_in)?;
            Ok(Effect::Tells(data[..data_in.min(data.len())].to_vec()))
        };
        match request.kind {
            IN => {
                within(request.sector, data_in as u64)?;
                some(data_in)?;
                lost(data_in)?;
                Ok(Effect::Reads(request.sector))
            }
            FLUSH => Ok(Effect::Nothing),
            GET_ID => {
                let mut serial = [0; 20];
                serial[..SERIAL.len()].copy_from_slice(SERIAL.as_bytes());
                tell(&serial)
            }
            GET_LIFETIME if self.limits.lifetime => tell(&[1, 0, 2, 0, 11, 0]),
            OUT | DISCARD | WRITE_ZEROES | SECURE_ERASE if self.read_only => Err(IOERR),
            OUT => {
                within(request.sector, request.out.len() as u64)?;
                some(request.out.len())?;
                lost(request.out.len())?;
                let sectors = request.out.chunks(SECTOR).map(|chunk| chunk.try_into().ok());
                Ok(Effect::Changes((request.sector as usize..).zip(sectors).collect()))
            }
            DISCARD | WRITE_ZEROES | SECURE_ERASE => self.ranges(request),
            _ => Err(UNSUPP),
        }
    }

    fn ranges(&self, request: &Request) -> Result<Effect, u8> {
        let Limits { discard, write_zeroes, secure_erase, .. } = self.limits;
        let (known, leaves, limits) = match request.kind {
            DISCARD => (0, None, discard.map(|limits| (limits.max_sectors, limits.max_seg))),
            WRITE_ZEROES => {
                let limits = write_zeroes.map(|limits| (limits.max_sectors, limits.max_seg));
                (UNMAP, Some([0; SECTOR]), limits)
            }
            _ => (0, None, secure_erase.map(|limits| (limits.max_sectors, limits.max_seg))),
        };
        let (max_sectors, max_seg) = limits.ok_or(UNSUPP)?;
        let list = &request.out;
        if list.is_empty() || !list.len().is_multiple_of(16) || list.len() / 16 > max_seg as usize {
            return Err(IOERR);
        }
        if request.lost {
            return Err(IOERR);
        }
        let ranges: Vec<(u64, u32, u32)> = list
            .chunks(16)
            .map(|range| {
                let word = |at: usize| u32::from_le_bytes(range[at..at + 4].try_into().unwrap());
                (u64::from_le_bytes(range[..8].try_into().unwrap()), word(8), word(12))
            })
            .collect();
        if ranges.iter().any(|(.., flags)| flags & !known != 0) {
            return Err(UNSUPP);
        }
        let mut changes = Vec::new();
        for (sector, sectors, _) in ranges {
            if sectors > max_sectors {
                return Err(IOERR);
            }
            within(sector, u64::from(sectors) * 512)?;
            changes.extend((sector..sector + u64::from(sectors)).map(|at| (at as usize, leaves)));
        }
        Ok(Effect::Changes(changes))
    }
}

/// A read or write of nothing is an error of its driver.
fn some(len: usize) -> Result<(), u8> {
    if len > 0 { Ok(()) } else { Err(IOERR) }
}

/// Whole sectors of the disk.
fn within(sector: u64, len: u64) -> Result<(), u8> {
    let end = u128::from(sector) * 512 + u128::from(len);
    if len.is_multiple_of(512) && end <= u128::from(SECTORS) * 512 { Ok(()) } else { Err(IOERR) }
}
