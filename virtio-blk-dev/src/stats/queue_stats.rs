use std::ops::{AddAssign, Index};
use std::time::Duration;

use super::latency::Latency;
use crate::request::RequestKind;

/// A copy of a queue's [`Counters`](super::Counters).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stats {
    pub(super) ops: [OpStats; RequestKind::ALL.len()],
    /// Requests taken and not answered yet.
    pub in_flight: u64,
    /// Errors of the host, the last of which
    /// [`Worker::take_last_error`](crate::Worker::take_last_error) returns. Other errors are the guest's.
    pub host_errors: u64,
    /// Requests returned without a status, as they had no room for one.
    pub without_status: u64,
    /// Publications of used entries: batches.
    pub batches: u64,
    /// Batches for which the driver had suppressed the interrupt.
    pub interrupts_suppressed: u64,
    /// Requests that a rate limit delayed.
    pub throttled: u64,
    /// For how long requests have been in flight without any being answered: since the last answer, or since the
    /// first of them was taken. Zero if there are none, or none but one that a rate limit delays. Of several queues,
    /// the longest.
    ///
    /// A disk whose storage answers has milliseconds here, unless it is asked to discard or zero a large range.
    pub stalled: Duration,
}

/// The requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OpStats {
    /// Requests answered, whatever the status.
    pub requests: u64,
    /// Bytes transferred, discarded or zeroed by those that succeeded.
    pub bytes: u64,
    /// Requests answered with a status other than OK.
    pub errors: u64,
    /// How long they took.
    pub latency: Latency,
}

impl OpStats {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            errors: self.errors.saturating_sub(earlier.errors),
            latency: self.latency.since(&earlier.latency),
        }
    }
}

impl Index<RequestKind> for Stats {
    type Output = OpStats;

    fn index(&self, kind: RequestKind) -> &OpStats {
        // An array has a place for each kind.
        #[allow(clippy::indexing_slicing)]
        &self.ops[kind as usize]
    }
}

impl Stats {
    /// All requests answered.
    pub fn requests(&self) -> u64 {
        self.sum(|op| op.requests)
    }

    /// All requests answered with a status other than OK, by the host's or the guest's fault.
    pub fn errors(&self) -> u64 {
        self.sum(|op| op.errors)
    }

    /// What was counted between `earlier` and this copy of the same counters, for rates and percentiles of that
    /// interval. What tells of one moment is this copy's: `in_flight`
    /// and `stalled`. A counter that is less than it was, as one
    /// that has begun anew, counts as zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut ops = self.ops.clone();
        ops.iter_mut().zip(&earlier.ops).for_each(|(op, before)| *op = op.since(before));
        Self {
            ops,
            in_flight: self.in_flight,
            host_errors: self.host_errors.saturating_sub(earlier.host_errors),
            without_status: self.without_status.saturating_sub(earlier.without_status),
            batches: self.batches.saturating_sub(earlier.batches),
            interrupts_suppressed: self
                .interrupts_suppressed
                .saturating_sub(earlier.interrupts_suppressed),
            throttled: self.throttled.saturating_sub(earlier.throttled),
            stalled: self.stalled,
        }
    }

    fn sum(&self, count: impl Fn(&OpStats) -> u64) -> u64 {
        self.ops.iter().fold(0, |sum, op| sum.wrapping_add(count(op)))
    }
}

/// The sum over several queues, or over the same queue before and after a reset.
impl AddAssign<&Self> for Stats {
    fn add_assign(&mut self, other: &Self) {
        for (op, more) in self.ops.iter_mut().zip(&other.ops) {
            op.requests = op.requests.wrapping_add(more.requests);
            op.bytes = op.bytes.wrapping_add(more.bytes);
            op.errors = op.errors.wrapping_add(more.errors);
            op.latency.add(&more.latency);
        }
        for (sum, more) in [
            (&mut self.in_flight, other.in_flight),
            (&mut self.host_errors, other.host_errors),
            (&mut self.without_status, other.without_status),
            (&mut self.batches, other.batches),
            (&mut self.interrupts_suppressed, other.interrupts_suppressed),
            (&mut self.throttled, other.throttled),
        ] {
            *sum = sum.wrapping_add(more);
        }
        self.stalled = self.stalled.max(other.stalled);
    }
}
