/// A call that took so many nanoseconds has waited for something, whatever the kernel promises. Mapping memory that the
/// guest uses for the first time takes a millisecond or two.
const SLOW: u64 = 5_000_000;
/// So many calls are left out after such a one. One alone says little, as when this thread was kept from its processor:
/// it is the more, the more there are.
const FIRST: u32 = 16;
const GROWTH: u32 = 8;
const LONGEST: u32 = 1024;
/// After so many quick calls in a row, what was before is over.
const QUICK: u32 = 256;

/// Whether serving inline has turned out to block.
#[derive(Debug)]
pub(crate) struct InlineRest {
    left: u32,
    /// How long the next rest is.
    next: u32,
    /// Quick calls since the last slow one.
    quick: u32,
}

impl Default for InlineRest {
    fn default() -> Self {
        Self { left: 0, next: FIRST, quick: 0 }
    }
}

impl InlineRest {
    pub(crate) fn is_over(&mut self) -> bool {
        let over = self.left == 0;
        self.left = self.left.saturating_sub(1);
        over
    }

    pub(crate) fn took(&mut self, nanos: u64) {
        if nanos > SLOW {
            self.left = self.next;
            self.next = self.next.saturating_mul(GROWTH).min(LONGEST);
            self.quick = 0;
        } else if self.next > FIRST {
            self.quick = self.quick.saturating_add(1);
            if self.quick == QUICK {
                *self = Self::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many calls are left out.
    fn rests(rest: &mut InlineRest) -> u32 {
        (0..).take_while(|_| !rest.is_over()).count() as u32
    }

    #[test]
    fn a_thread_that_was_held_up_once_is_not_risked_for_some_time() {
        let mut rest = InlineRest::default();
        assert!(rest.is_over());
        rest.took(SLOW);
        assert!(rest.is_over());
        rest.took(SLOW + 1);
        assert_eq!(rests(&mut rest), FIRST);
        assert!(rest.is_over());
    }

    #[test]
    fn a_thread_that_is_held_up_again_and_again_is_risked_less_and_less() {
        let mut rest = InlineRest::default();
        for expected in [16, 128, 1024, 1024] {
            rest.took(SLOW + 1);
            assert_eq!(rests(&mut rest), expected);
        }
        // Until it has long been quick.
        (1..QUICK).for_each(|_| rest.took(1));
        rest.took(SLOW + 1);
        assert_eq!(rests(&mut rest), LONGEST);
        (0..QUICK).for_each(|_| rest.took(1));
        rest.took(SLOW + 1);
        assert_eq!(rests(&mut rest), FIRST);
    }
}
