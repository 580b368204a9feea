use std::io;
use std::ops::{AddAssign, Index};
use std::sync::atomic::{AtomicU64, Ordering};

use super::latency::{Latency, Recorder};
use crate::request::RequestKind;

/// A copy of a queue's [`Counters`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    ops: [OpStats; RequestKind::ALL.len()],
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
}

/// The requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    }
}

/// A counter with one writing thread and any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of a worker, which any thread may read while it runs.
#[derive(Debug, Default)]
pub struct Counters {
    ops: [OpCounters; RequestKind::ALL.len()],
    pub(crate) in_flight: Counter,
    pub(crate) host_errors: Counter,
    pub(crate) without_status: Counter,
    pub(crate) batches: Counter,
    pub(crate) interrupts_suppressed: Counter,
    pub(crate) throttled: Counter,
}

#[derive(Debug, Default)]
struct OpCounters {
    requests: Counter,
    bytes: Counter,
    errors: Counter,
    latency: Recorder,
}

impl Counters {
    /// Copies the counters.
    pub fn read(&self) -> Stats {
        Stats {
            ops: self.ops.each_ref().map(|op| OpStats {
                requests: op.requests.get(),
                bytes: op.bytes.get(),
                errors: op.errors.get(),
                latency: op.latency.read(),
            }),
            in_flight: self.in_flight.get(),
            host_errors: self.host_errors.get(),
            without_status: self.without_status.get(),
            batches: self.batches.get(),
            interrupts_suppressed: self.interrupts_suppressed.get(),
            throttled: self.throttled.get(),
        }
    }

    #[inline]
    pub(crate) fn count(&self, kind: RequestKind, ok: bool, bytes: u64) {
        let Some(op) = self.ops.get(kind as usize) else { return };
        op.requests.add(1);
        if ok {
            op.bytes.add(bytes);
        } else {
            op.errors.add(1);
        }
    }

    #[inline]
    pub(crate) fn took(&self, kind: RequestKind, nanos: u64) {
        if let Some(op) = self.ops.get(kind as usize) {
            op.latency.record(nanos);
        }
    }
}

/// A request the host failed. The guest got `VIRTIO_BLK_S_IOERR`.
#[derive(Debug, thiserror::Error)]
#[error("{kind:?} at sector {sector} failed")]
#[non_exhaustive]
pub struct HostError {
    /// What the guest asked for.
    pub kind: RequestKind,
    /// Where, in units of 512 bytes; 0 for a flush.
    pub sector: u64,
    /// What the system said; `raw_os_error` has the errno.
    pub source: io::Error,
}

impl HostError {
    /// A copy of the error, which keeps the errno.
    pub(crate) fn again(&self) -> Self {
        let Self { kind, sector, source } = self;
        let source = source
            .raw_os_error()
            .map_or_else(|| source.kind().into(), io::Error::from_raw_os_error);
        Self { kind: *kind, sector: *sector, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_counts_every_kind() {
        let counters = Counters::default();
        counters.host_errors.add(1);
        counters.without_status.add(2);
        for (nth, kind) in RequestKind::ALL.into_iter().enumerate() {
            counters.count(kind, nth % 2 == 0, 512);
            counters.took(kind, 1000);
        }
        let one = counters.read();
        let mut sum = one.clone();
        sum += &one;
        assert_eq!((sum.requests(), sum.errors()), (18, 8));
        assert_eq!((sum.host_errors, sum.without_status), (2, 4));
        for (nth, kind) in RequestKind::ALL.into_iter().enumerate() {
            let OpStats { requests, bytes, errors, latency } = &sum[kind];
            let expected = if nth % 2 == 0 { (2, 1024, 0) } else { (2, 0, 2) };
            assert_eq!((*requests, *bytes, *errors), expected, "{kind:?}");
            assert_eq!((latency.count(), latency.total().as_nanos()), (2, 2000));
        }
    }
}
