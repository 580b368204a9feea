use super::error::ConfigError;
use crate::image::Image;
use crate::sector::SECTOR_SIZE;

/// The commands beyond reads, writes and flushes that a device offers, with the limits of a request
/// (virtio 1.2 §5.2.4). A command that is `None` is not offered.
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

/// The limits of a discard or secure erase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeLimits {
    /// The most sectors of 512 bytes in one range.
    pub max_sectors: u32,
    /// The most ranges in one request.
    pub max_seg: u32,
    /// The unit of the storage, in sectors: ranges should begin and end at a multiple.
    pub alignment_sectors: u32,
}

/// The limits of a request to write zeroes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroesLimits {
    /// The most sectors of 512 bytes in one range.
    pub max_sectors: u32,
    /// The most ranges in one request.
    pub max_seg: u32,
    /// The driver may allow that zeroed ranges are deallocated.
    pub may_unmap: bool,
}

/// 2 GiB: deallocation is fast, but a call that isn't can't be interrupted.
const DISCARD_SECTORS: u32 = 1 << 22;
/// 128 MiB: without support of the storage zeroes are written as data.
const ZEROES_SECTORS: u32 = 1 << 18;
const MAX_SEG: u32 = 64;

impl Limits {
    /// The commands of `image`, with limits that keep a request from taking very long.
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

    /// Fails if a command is offered with a limit of zero (virtio 1.2 §5.2.5.2).
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
