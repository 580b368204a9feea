use std::collections::BTreeMap;

/// Bytes of what is kept: no more than the smallest cluster, so that no block is table and data.
pub(super) const BLOCK_SIZE: usize = 512;
pub(super) type Block = [u8; BLOCK_SIZE];

/// Blocks of tables by number.
pub(super) type Blocks = BTreeMap<u64, Box<Block>>;

/// Replaces what `blocks` have of the bytes at `offset`.
pub(super) fn overlay(blocks: &Blocks, bytes: &mut [u8], offset: u64) {
    let block_size = BLOCK_SIZE as u64;
    let first = offset.checked_div(block_size).unwrap_or(0);
    let end = offset.saturating_add(bytes.len() as u64).div_ceil(block_size);
    for (number, block) in blocks.range(first..end) {
        let start = number.saturating_mul(block_size);
        let skip = usize::try_from(offset.saturating_sub(start)).unwrap_or(BLOCK_SIZE);
        let place = usize::try_from(start.saturating_sub(offset)).unwrap_or(usize::MAX);
        let from = block.get(skip..).unwrap_or_default();
        let into = bytes.get_mut(place..).unwrap_or_default();
        for (byte, new) in into.iter_mut().zip(from) {
            *byte = *new;
        }
    }
}
