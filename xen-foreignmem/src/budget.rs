//! How much of a guest's RAM may be mapped.

use std::sync::atomic::Ordering;

use crate::layout::Layout;
use crate::stats::Counters;

/// What a mapping of RAM is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A chunk, to be cached.
    Chunk,
    /// Pages of one access, as no chunk can be had.
    Request,
    /// A ring.
    Ring,
}

impl Layout {
    /// How many bytes more may be mapped, with all that is mapped now: cached, held, or retired and not yet
    /// unmapped.
    pub(crate) fn room(&self, counters: &Counters, wanted: Use) -> u64 {
        let limit = self.limit(wanted).unwrap_or(u64::MAX);
        limit.saturating_sub(counters.bytes.load(Ordering::Relaxed))
    }

    /// Whether a chunk of `bytes` could ever be mapped.
    pub(crate) fn could_have_room(&self, bytes: u64) -> bool {
        self.limit(Use::Chunk).is_none_or(|limit| bytes <= limit)
    }

    /// A quarter is left to requests whose chunks have no room as all others are in use: pages alone are
    /// little, so the requests in flight find room there that they would not find by chunks.
    fn limit(&self, wanted: Use) -> Option<u64> {
        let budget = self.budget_bytes()?;
        match wanted {
            Use::Chunk => Some(budget - budget / 4),
            Use::Request => Some(budget),
            Use::Ring => None,
        }
    }
}
