//! What a sector holds: a function of a seed and of the sector's number, so that neither stale data
//! nor data of another place passes for right.

use crate::disk::SECTOR;

/// Words of 64 bits in a sector.
const WORDS: u64 = SECTOR / 8;

/// Writes the pattern of the sectors from `first` on.
pub(crate) fn fill(data: &mut [u8], seed: u64, first: u64) {
    for (index, word) in (first * WORDS..).zip(data.chunks_exact_mut(8)) {
        word.copy_from_slice(&mix(seed, index).to_le_bytes());
    }
}

/// The first sector that holds anything else.
pub(crate) fn mismatch(data: &[u8], seed: u64, first: u64) -> Option<u64> {
    let mut words = (first * WORDS..).zip(data.chunks_exact(8));
    words
        .find(|(index, word)| **word != mix(seed, *index).to_le_bytes())
        .map(|(index, _)| index / WORDS)
}

/// A number that looks random, from the splitmix64 finaliser.
pub(crate) fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_bit_names_its_sector() {
        let mut data = vec![0; 4 * 512];
        fill(&mut data, 7, 100);
        assert_eq!(mismatch(&data, 7, 100), None);
        data[2 * 512 + 511] ^= 1;
        assert_eq!(mismatch(&data, 7, 100), Some(102));
    }

    #[test]
    fn another_seed_or_place_is_wrong() {
        let mut data = vec![0; 512];
        fill(&mut data, 7, 100);
        assert_eq!(mismatch(&data, 8, 100), Some(100));
        assert_eq!(mismatch(&data, 7, 101), Some(101));
        assert_eq!(mismatch(&[0; 512], 0, 0), Some(0));
    }
}
