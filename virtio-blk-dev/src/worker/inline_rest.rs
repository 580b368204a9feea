/// A call that took so many nanoseconds has waited for something, whatever the kernel promises. Mapping memory that the
/// guest uses for the first time takes a millisecond or two.
const SLOW: u64 = 5_000_000;
/// So many calls are left out after such a one.
const REST: u32 = 1024;

/// Whether serving inline has turned out to block.
#[derive(Debug, Default)]
pub(crate) struct InlineRest(u32);

impl InlineRest {
    pub(crate) fn is_over(&mut self) -> bool {
        let over = self.0 == 0;
        self.0 = self.0.saturating_sub(1);
        over
    }

    pub(crate) fn took(&mut self, nanos: u64) {
        if nanos > SLOW {
            self.0 = REST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_was_held_up_once_is_not_risked_for_some_time() {
        let mut rest = InlineRest::default();
        assert!(rest.is_over());
        rest.took(SLOW);
        assert!(rest.is_over());
        rest.took(SLOW + 1);
        assert_eq!((0..).take_while(|_| !rest.is_over()).count(), REST as usize);
        assert!(rest.is_over());
    }
}
