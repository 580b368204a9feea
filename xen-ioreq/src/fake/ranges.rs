//! The ranges of a server, as Xen's rangesets keep them.

use crate::sys::MAX_RANGES;

/// Apart from each other by at least a byte; ends are inclusive.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(super) fn contains(&self, start: u64, end: u64) -> bool {
        self.0.iter().any(|&(s, e)| s <= start && end <= e)
    }

    /// The error is Xen's errno.
    pub(super) fn add(&mut self, start: u64, end: u64) -> Result<(), i32> {
        if start > end {
            return Err(libc::EINVAL);
        }
        if self.0.iter().any(|&(s, e)| s <= end && start <= e) {
            return Err(libc::EEXIST);
        }
        // Ranges that touch become one. Apart from each other, at most one ends where this one starts, and
        // one starts where it ends.
        let before = self.0.iter().position(|&(_, e)| e.checked_add(1) == Some(start));
        let after = self.0.iter().position(|&(s, _)| end.checked_add(1) == Some(s));
        match (before, after) {
            (Some(before), Some(after)) => {
                self.0[before].1 = self.0[after].1;
                self.0.remove(after);
            }
            (Some(before), None) => self.0[before].1 = end,
            (None, Some(after)) => self.0[after].0 = start,
            (None, None) if self.0.len() == MAX_RANGES => return Err(libc::ENOMEM),
            (None, None) => self.0.push((start, end)),
        }
        Ok(())
    }

    /// The error is Xen's errno.
    pub(super) fn remove(&mut self, start: u64, end: u64) -> Result<(), i32> {
        if start > end {
            return Err(libc::EINVAL);
        }
        let at = self.0.iter().position(|&(s, e)| s <= start && end <= e).ok_or(libc::ENOENT)?;
        let (s, e) = self.0[at];
        let left = (s < start).then(|| (s, start - 1));
        let right = (end < e).then(|| (end + 1, e));
        if left.is_some() && right.is_some() && self.0.len() == MAX_RANGES {
            return Err(libc::ENOMEM);
        }
        self.0.splice(at..=at, left.into_iter().chain(right));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        ranges.add(0x200, 0x2ff).unwrap();
        ranges.add(0x400, 0x4ff).unwrap();
        assert!(!ranges.contains(0x2ff, 0x400));
        ranges.add(0x300, 0x3ff).unwrap();
        assert!(ranges.contains(0x200, 0x4ff));
        assert_eq!(ranges.add(0x4ff, 0x500), Err(libc::EEXIST));
        assert_eq!(ranges.add(1, 0), Err(libc::EINVAL));
        ranges.add(0x500, u64::MAX).unwrap();
        ranges.add(0, 0x1ff).unwrap();
        assert!(ranges.contains(0, u64::MAX));
    }

    #[test]
    fn a_part_can_be_removed() {
        let mut ranges = Ranges::default();
        ranges.add(0x100, 0x2ff).unwrap();
        ranges.remove(0x180, 0x1ff).unwrap();
        assert!(ranges.contains(0x100, 0x17f));
        assert!(ranges.contains(0x200, 0x2ff));
        assert!(!ranges.contains(0x180, 0x180));
        assert_eq!(ranges.remove(0x17f, 0x180), Err(libc::ENOENT));
        assert_eq!(ranges.remove(1, 0), Err(libc::EINVAL));
    }

    #[test]
    #[cfg_attr(miri, ignore = "256 ranges take long, and are plain numbers")]
    fn there_are_256_at_most() {
        let mut ranges = Ranges::default();
        for i in 0..256 {
            ranges.add(i * 0x100, i * 0x100 + 0x7f).unwrap();
        }
        assert_eq!(ranges.add(0x10_0000, 0x10_00ff), Err(libc::ENOMEM));
        assert_eq!(ranges.remove(0x10, 0x1f), Err(libc::ENOMEM));
        ranges.remove(0, 0x7f).unwrap();
        ranges.add(0x10_0000, 0x10_00ff).unwrap();
    }
}
