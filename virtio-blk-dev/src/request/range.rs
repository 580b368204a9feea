use crate::engine::Command;

/// One range of a request, in bytes, within the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) command: Command,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Range {
    /// Removes the next piece from `ranges`, which are in reverse order. A piece ends at a multiple of
    /// `piece` bytes, so that no unit of the storage is split.
    pub(crate) fn next_piece(ranges: &mut Vec<Self>, piece: u64) -> Option<Self> {
        loop {
            let range = ranges.last_mut()?;
            let Self { command, offset, len } = *range;
            let end = offset.saturating_add(len);
            let boundary = offset.saturating_add(1).checked_next_multiple_of(piece.max(1));
            let cut = end.min(boundary.unwrap_or(end));
            if cut < end {
                (range.offset, range.len) = (cut, end.saturating_sub(cut));
            } else {
                ranges.pop();
            }
            // An empty range needs no operation.
            if cut > offset {
                return Some(Self { command, offset, len: cut.saturating_sub(offset) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_multiples_and_are_the_whole_together() {
        let command = Command::Discard;
        let range = |offset, len| Range { command, offset, len };
        let mut ranges = vec![range(7, 0), range(100, 1), range(90, 130), range(5, 0)];
        let mut pieces = Vec::new();
        while let Some(piece) = Range::next_piece(&mut ranges, 64) {
            pieces.push((piece.offset, piece.len));
        }
        assert_eq!(pieces, [(90, 38), (128, 64), (192, 28), (100, 1)]);
        let mut last = vec![range(u64::MAX - 10, 10)];
        assert_eq!(Range::next_piece(&mut last, 64), Some(range(u64::MAX - 10, 10)));
        assert_eq!(Range::next_piece(&mut last, 0), None);
    }
}
