//! Grant copies: many segments in one call.

use std::io;
use std::sync::atomic::Ordering;

use crate::grant::{CopySegment, GrantTable};
use crate::stats::{Counters, count};

/// A list of segments, empty between two uses, that keeps its allocation.
#[derive(Debug, Default)]
pub(crate) struct Copies(Vec<CopySegment<'static>>);

/// What became of a copy.
pub(crate) struct Copied {
    /// Segments that were not copied.
    failures: u64,
    /// Whether each segment has been tried, and has a status.
    pub(crate) was_tried: bool,
    /// The first failure.
    pub(crate) result: io::Result<()>,
}

impl Copies {
    /// Lends the list, empty.
    pub(crate) fn with<'a, T>(&mut self, work: impl FnOnce(&mut Vec<CopySegment<'a>>) -> T) -> T {
        let mut segments: Vec<CopySegment<'a>> = std::mem::take(&mut self.0);
        let result = work(&mut segments);
        segments.clear();
        // Without elements, so that they need not live as long as the allocation, which is the same.
        self.0 = segments.into_iter().map_while(|_| None).collect();
        result
    }
}

impl Copied {
    /// Counts the segments that were not copied to the guest.
    pub(crate) fn count(&self, counters: &Counters) {
        if self.failures > 0 {
            counters.copy_failures.fetch_add(self.failures, Ordering::Relaxed);
        }
    }
}

/// Copies all segments in one call, if there are any.
pub(crate) fn copy<G: GrantTable>(
    table: &G,
    segments: &mut [CopySegment<'_>],
    counters: &Counters,
) -> Copied {
    if segments.is_empty() {
        return Copied { failures: 0, was_tried: true, result: Ok(()) };
    }
    count(&counters.grant_copies);
    if let Err(error) = table.copy(segments) {
        let failures = segments.len() as u64;
        return Copied { failures, was_tried: false, result: Err(error) };
    }
    let failed = segments.iter().filter(|segment| !segment.is_done());
    let result = failed.clone().next().map_or(Ok(()), |segment| {
        let reason = format!("grant copy status {}", segment.status());
        Err(io::Error::other(reason))
    });
    Copied { failures: failed.count() as u64, was_tried: true, result }
}
