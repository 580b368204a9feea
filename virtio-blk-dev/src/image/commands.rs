/// The commands beyond reads, writes and flushes that a storage really carries out: what isn't here
/// is not offered to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Discards, in units of so many bytes: a power of two, at least 512.
    pub discard: Option<u32>,
    /// Zeroes without data.
    pub write_zeroes: bool,
    /// The storage of zeroes can be given back.
    pub write_zeroes_may_unmap: bool,
    /// Secure erases, in units of so many bytes: a power of two, at least 512.
    pub secure_erase: Option<u32>,
    /// The storage tells of its wear.
    pub lifetime: bool,
}

/// The wear of an eMMC or UFS device, as JEDEC's fields have it (`struct virtio_blk_lifetime`,
/// virtio 1.2 §5.2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// `EXT_CSD_PRE_EOL_INFO`: 0 undefined, 1 normal, 2 warning, 3 urgent.
    pub pre_eol_info: u16,
    /// `EXT_CSD_DEVICE_LIFE_TIME_EST_TYP_A`: tenths of the life of the SLC cells used, 1 to 11.
    pub device_lifetime_est_typ_a: u16,
    /// `EXT_CSD_DEVICE_LIFE_TIME_EST_TYP_B`: of the MLC cells.
    pub device_lifetime_est_typ_b: u16,
}
