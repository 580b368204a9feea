/// The `len` of a used entry: the bytes known to be written, from the first device-writable one on
/// (virtio 1.2 §2.7.8.2: at least `len` bytes were written, more may have been).
///
/// `data_in` bytes precede the status byte, which is always written; the first `written` of them are
/// known to be. So a read reports data and status, a write or flush the status alone, and a failed read
/// nothing, as it isn't known which of its data was written.
pub(crate) fn used_len(data_in: u64, written: u64) -> u32 {
    let len = if written >= data_in { data_in.saturating_add(1) } else { written };
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_len_is_never_overstated() {
        assert_eq!(used_len(512, 512), 513);
        assert_eq!(used_len(0, 0), 1);
        assert_eq!(used_len(512, 0), 0);
        assert_eq!(used_len(64, 20), 20);
        assert_eq!(used_len(u64::from(u32::MAX), u64::from(u32::MAX)), u32::MAX);
    }
}
