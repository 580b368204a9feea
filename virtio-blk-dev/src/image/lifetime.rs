/// The wear of an eMMC or UFS device, in the fields of the JEDEC standards (`struct virtio_blk_lifetime`,
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
