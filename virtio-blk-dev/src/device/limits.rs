use super::error::ConfigError;
use crate::image::Image;
use crate::sector::SECTOR_SIZE;

/// The commands beyond reads, writes and flushes that a device offers, and how much of each a
/// request may ask for (virtio 1.2 §5.2.4). What is `None` is not offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `VIRTIO_BLK_T_DISCARD`.
    pub discard: Option<RangeLimits>,
    /// `VIRTIO_BLK_T_WRITE_ZEROES`.
    pub write_zeroes: Option<ZeroesLimits>,
    /// `VIRTIO_BLK_T_SECURE_ERASE`.
    pub secure_erase: Option<RangeLimits>,
    /// `VIRTIO_BLK_T_GET_LIFETIME`.
    pub lifetime: bool,
}

/// How much one discard or secure erase may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeLimits {
    /// Sectors of 512 bytes in one range.
    pub max_sectors: u32,
    /// Ranges in one request.
    pub max_seg: u32,
    /// The unit in which the storage works, in sectors: a range begins and ends best at a multiple.
    pub alignment_sectors: u32,
}

/// How much one request for zeroes may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroesLimits {
    /// Sectors of 512 bytes in one range.
    pub max_sectors: u32,
    /// Ranges in one request.
    pub max_seg: u32,
    /// The driver may let the storage of zeroes be given back.
    pub may_unmap: bool,
}

/// 2 GiB: giving storage back is quick, and a request that isn't can't be interrupted.
const DISCARD_SECTORS: u32 = 1 << 22;
/// 128 MiB: where the storage has no zeroes of its own they are written out.
const ZEROES_SECTORS: u32 = 1 << 18;
const MAX_SEG: u32 = 64;

impl Limits {
    /// What `image` carries out, in amounts that keep a request from taking very long.
    pub(crate) fn of<I: Image + ?Sized>(image: &I) -> Self {
        if image.is_read_only() {
            return Self { lifetime: image.commands().lifetime, ..Self::default() };
        }
        let commands = image.commands();
        let range = |granule: u32| RangeLimits {
            max_sectors: DISCARD_SECTORS,
            max_seg: MAX_SEG,
            alignment_sectors: (granule >> SECTOR_SIZE.trailing_zeros()).max(1),
        };
        Self {
            discard: commands.discard.map(range),
            write_zeroes: commands.write_zeroes.then_some(ZeroesLimits {
                max_sectors: ZEROES_SECTORS,
                max_seg: MAX_SEG,
                may_unmap: commands.write_zeroes_may_unmap,
            }),
            secure_erase: commands.secure_erase.map(range),
            lifetime: commands.lifetime,
        }
    }

    /// Refuses a command that is offered, but not for a single sector: a driver could do nothing
    /// with it (virtio 1.2 §5.2.5.2 wants non-zero limits).
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let ranges = [self.discard, self.secure_erase].into_iter().flatten();
        let empty = ranges
            .map(|limits| {
                limits.max_sectors == 0 || limits.max_seg == 0 || limits.alignment_sectors == 0
            })
            .chain(self.write_zeroes.map(|zeroes| zeroes.max_sectors == 0 || zeroes.max_seg == 0));
        if empty.into_iter().any(|empty| empty) { Err(ConfigError::Limits) } else { Ok(()) }
    }
}
