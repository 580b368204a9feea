//! Values of registers, taken apart.

pub(crate) fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

pub(crate) fn high(value: u64) -> u32 {
    let [.., a, b, c, d] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

pub(crate) fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// The 32-bit parts of an aligned access of 4 or 8 bytes, each at its offset; none of any other.
pub(crate) fn halves(offset: u32, data: &mut [u8]) -> impl Iterator<Item = (u32, &mut [u8; 4])> {
    let count = count(offset, data.len());
    let parts = data.chunks_exact_mut(4).filter_map(|part| part.try_into().ok());
    (offset..).step_by(4).zip(parts).take(count)
}

/// The 32-bit values of an aligned write of 4 or 8 bytes, each with its offset; none of any other.
pub(crate) fn written_halves(offset: u32, data: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let parts = data.chunks_exact(4).filter_map(|part| part.try_into().ok());
    let values = parts.map(u32::from_le_bytes);
    (offset..).step_by(4).zip(values).take(count(offset, data.len()))
}

/// How many 32-bit registers an access of `len` bytes is one of.
fn count(offset: u32, len: usize) -> usize {
    match len {
        4 if offset.is_multiple_of(4) => 1,
        8 if offset.is_multiple_of(8) => 2,
        _ => 0,
    }
}

/// The little-endian value of at most 8 bytes.
pub(crate) fn value(data: &[u8]) -> u64 {
    data.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Puts the low bytes of `value` into `data`.
pub(crate) fn put(value: u64, data: &mut [u8]) {
    for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
        *to = from;
    }
}
