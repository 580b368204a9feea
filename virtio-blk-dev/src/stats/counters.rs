use std::sync::atomic::{AtomicU64, Ordering};

use super::latency::Recorder;
use super::queue_stats::{OpStats, Stats};
use super::stall_timer::StallTimer;
use crate::request::RequestKind;

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
    pub(crate) stall: StallTimer,
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
            stalled: self.stall.read(),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts something with each counter.
    fn count_some(counters: &Counters) {
        counters.host_errors.add(1);
        counters.without_status.add(2);
        counters.batches.add(3);
        counters.interrupts_suppressed.add(4);
        counters.throttled.add(5);
        for (nth, kind) in RequestKind::ALL.into_iter().enumerate() {
            counters.count(kind, nth % 2 == 0, 512);
            counters.took(kind, 1000);
        }
    }

    #[test]
    fn an_interval_has_what_was_counted_in_it_and_what_is_in_flight_at_its_end() {
        let counters = Counters::default();
        count_some(&counters);
        let first = counters.read();
        counters.in_flight.set(7);
        count_some(&counters);
        let earlier = counters.read();
        count_some(&counters);
        counters.in_flight.set(3);
        let interval = counters.read().since(&earlier);
        assert_eq!(interval, Stats { in_flight: 3, ..first.clone() });
        assert_eq!(earlier.since(&Stats::default()), earlier);
        // After counters that have begun anew: nothing, and no wrapped number.
        let anew = first.since(&earlier);
        assert_eq!((anew.requests(), anew.errors(), anew.throttled, anew.in_flight), (0, 0, 0, 0));
    }

    #[test]
    fn a_sum_counts_every_kind() {
        let counters = Counters::default();
        count_some(&counters);
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
