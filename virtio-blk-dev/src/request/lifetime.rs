use crate::image::Lifetime;

/// `struct virtio_blk_lifetime` (virtio 1.2 §5.2.6). Reserved values, which storage may report and a
/// device must not (§5.2.6.2), are replaced by the one for "undefined".
pub(crate) fn lifetime_bytes(lifetime: &Lifetime) -> [u8; 6] {
    let defined = |value: u16, greatest| if value > greatest { 0 } else { value }.to_le_bytes();
    let [a, b] = defined(lifetime.pre_eol_info, 3);
    let [c, d] = defined(lifetime.device_lifetime_est_typ_a, 11);
    let [e, f] = defined(lifetime.device_lifetime_est_typ_b, 11);
    [a, b, c, d, e, f]
}
