//! Which of a row of places are free.

const BITS: usize = u64::BITS as usize;

/// The free places of a row, which are taken and given back in runs.
#[derive(Debug)]
pub(crate) struct FreeRuns {
    /// A bit for each place, set if it is free.
    words: Vec<u64>,
    /// No word before this one has a free place.
    first: usize,
}

impl FreeRuns {
    /// So many places, all free.
    pub(crate) fn new(places: usize) -> Self {
        let mut runs = Self { words: vec![0; places.div_ceil(BITS)], first: 0 };
        runs.set(0, places, true);
        runs
    }

    /// Takes the first run of `count` free places, at least one, and returns the number of its first place.
    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Option<usize> {
        let mut at = self.first * BITS;
        loop {
            let start = self.next(at, true)?;
            if at == self.first * BITS {
                self.first = start / BITS;
            }
            if count == 1 {
                self.words[start / BITS] &= !(1 << (start % BITS));
                return Some(start);
            }
            let end = self.next(start, false).unwrap_or(self.words.len() * BITS);
            if end - start >= count {
                self.set(start, count, false);
                return Some(start);
            }
            at = end;
        }
    }

    /// Gives back places that were taken.
    #[inline]
    pub(crate) fn give_back(&mut self, start: usize, count: usize) {
        self.set(start, count, true);
        self.first = self.first.min(start / BITS);
    }

    /// The first place from `at` on that is free, or isn't.
    #[inline]
    fn next(&self, at: usize, free: bool) -> Option<usize> {
        let mut mask = u64::MAX << (at % BITS);
        for (index, &word) in self.words.iter().enumerate().skip(at / BITS) {
            let found = if free { word } else { !word } & mask;
            if found != 0 {
                return Some(index * BITS + found.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    fn set(&mut self, start: usize, count: usize, free: bool) {
        let (mut at, end) = (start, start + count);
        while at < end {
            let bit = at % BITS;
            let bits = (BITS - bit).min(end - at);
            let mask = (u64::MAX >> (BITS - bits)) << bit;
            let word = &mut self.words[at / BITS];
            if free {
                *word |= mask;
            } else {
                *word &= !mask;
            }
            at += bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_first_run_that_is_long_enough_is_taken(
            places in 0..200_usize,
            steps in prop::collection::vec((1..90_usize, any::<prop::sample::Index>(), any::<bool>()), 0..40),
        ) {
            let mut model = vec![true; places];
            let mut taken = Vec::new();
            let mut runs = FreeRuns::new(places);
            for (count, which, give_back) in steps {
                if give_back && !taken.is_empty() {
                    let (start, count): (usize, usize) = taken.swap_remove(which.index(taken.len()));
                    runs.give_back(start, count);
                    model[start..start + count].fill(true);
                    continue;
                }
                let expected = (0..places).find(|&start| {
                    model.get(start..start + count).is_some_and(|run| run.iter().all(|&free| free))
                });
                prop_assert_eq!(runs.take(count), expected);
                if let Some(start) = expected {
                    model[start..start + count].fill(false);
                    taken.push((start, count));
                }
            }
        }
    }
}
