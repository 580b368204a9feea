use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two is divided into `1 << SUB_BITS` buckets.
const SUB_BITS: u32 = 3;
/// Values below `1 << FIRST` nanoseconds are in the first bucket.
const FIRST: u32 = 8;
/// Values from `1 << LAST` nanoseconds on, about 34 s, are in the last bucket.
const LAST: u32 = 35;
const BUCKETS: usize = (((LAST - FIRST) << SUB_BITS) + 2) as usize;

/// The bucket of a time.
fn bucket(nanos: u64) -> usize {
    let power = nanos.checked_ilog2().unwrap_or(0);
    if power < FIRST {
        return 0;
    }
    if power >= LAST {
        return BUCKETS.saturating_sub(1);
    }
    let sub = (nanos >> power.saturating_sub(SUB_BITS)) & ((1 << SUB_BITS) - 1);
    let whole = u64::from(power.saturating_sub(FIRST)) << SUB_BITS;
    usize::try_from(whole.saturating_add(sub).saturating_add(1)).unwrap_or(0)
}

/// The upper end of a bucket, which is not in it, in nanoseconds.
fn end(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX).min(BUCKETS as u64);
    let (power, sub) = (bucket >> SUB_BITS, bucket & ((1 << SUB_BITS) - 1));
    let base = 1u64 << (u64::from(FIRST).saturating_add(power).min(63));
    base.saturating_add((base >> SUB_BITS).saturating_mul(sub))
}

/// A histogram of request times, in buckets an eighth of a power of two wide: a percentile is at most
/// 12.5 % too long. One thread writes it, any may read it.
#[derive(Debug)]
pub(crate) struct Recorder {
    counts: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], nanos: AtomicU64::new(0) }
    }
}

/// There is one writer, so no read-modify-write is needed.
#[inline]
fn add(sum: &AtomicU64, more: u64) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Recorder {
    #[inline]
    pub(crate) fn record(&self, nanos: u64) {
        if let Some(count) = self.counts.get(bucket(nanos)) {
            add(count, 1);
        }
        add(&self.nanos, nanos);
    }

    pub(crate) fn read(&self) -> Latency {
        Latency {
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            nanos: self.nanos.load(Ordering::Relaxed),
        }
    }
}

/// A histogram of how long requests took, from being taken out of the ring to being published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Latency {
    #[cfg_attr(feature = "serde", serde(deserialize_with = "counts"))]
    counts: Vec<u64>,
    nanos: u64,
}

/// None, or one of each bucket.
#[cfg(feature = "serde")]
fn counts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    let counts = <Vec<u64> as serde::Deserialize>::deserialize(deserializer)?;
    match counts.len() {
        0 | BUCKETS => Ok(counts),
        len => Err(serde::de::Error::invalid_length(len, &"a count of each bucket, or none")),
    }
}

impl Latency {
    /// Requests measured.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// The sum of their times. If it was copied while requests were answered, it may lack the last one
    /// counted.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// The time that a `share`, from 0 to 1, of the requests took at most; up to 12.5 % too long. Zero
    /// without requests.
    pub fn percentile(&self, share: f64) -> Duration {
        let wanted = (self.count() as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut seen = 0u64;
        for (bucket, &count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(count);
            if seen as f64 >= wanted {
                return Duration::from_nanos(end(bucket));
            }
        }
        Duration::ZERO
    }

    /// A cumulative histogram as Prometheus defines it: the upper ends of the buckets, joined to powers of
    /// two, and how many requests took less than each.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut seen = 0u64;
        self.counts.iter().enumerate().filter_map(move |(bucket, &count)| {
            seen = seen.saturating_add(count);
            let end = end(bucket);
            end.is_power_of_two().then_some((Duration::from_nanos(end), seen))
        })
    }
}

impl Latency {
    /// The requests measured between `earlier` and this copy of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        since.nanos = since.nanos.saturating_sub(earlier.nanos);
        since
    }

    /// Adds the requests of another queue.
    pub fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.nanos = self.nanos.saturating_add(other.nanos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_below_the_end_of_its_bucket_and_near_it() {
        let mut last = 0;
        for power in 0..64u32 {
            for part in 0..16 {
                let nanos = (1u64 << power) + ((1u64 << power) / 16) * part;
                let found = bucket(nanos);
                assert!(found >= last && found < BUCKETS);
                last = found;
                if (FIRST..LAST).contains(&power) {
                    assert!(nanos < end(found), "{nanos} in {found}");
                    assert!(end(found) - nanos <= nanos / 8, "{nanos} in {found}");
                    assert!(found == 0 || nanos >= end(found - 1));
                }
            }
        }
        assert_eq!((bucket(0), bucket(255), bucket(u64::MAX)), (0, 0, BUCKETS - 1));
    }

    #[test]
    fn percentiles_are_of_what_was_recorded() {
        let recorder = Recorder::default();
        (0..990).for_each(|_| recorder.record(1_000));
        (0..9).for_each(|_| recorder.record(100_000));
        recorder.record(10_000_000);
        let latency = recorder.read();
        let micros = |share| latency.percentile(share).as_micros();
        assert_eq!(latency.count(), 1000);
        assert_eq!(latency.total(), Duration::from_micros(990 + 900 + 10_000));
        assert!((1..=1).contains(&micros(0.5)));
        assert!((1..=1).contains(&micros(0.99)));
        assert!((100..=113).contains(&micros(0.999)));
        assert!((10_000..=11_250).contains(&micros(1.0)));
        assert_eq!(Latency::default().percentile(0.5), Duration::ZERO);
    }

    #[test]
    fn the_percentiles_of_an_interval_are_of_its_requests_alone() {
        let recorder = Recorder::default();
        (0..1000).for_each(|_| recorder.record(1_000));
        let earlier = recorder.read();
        (0..10).for_each(|_| recorder.record(10_000_000));
        let later = recorder.read();
        let since = later.since(&earlier);
        assert_eq!((since.count(), since.total()), (10, Duration::from_millis(100)));
        assert!(since.percentile(0.01) >= Duration::from_millis(10));
        assert!(later.percentile(0.5) < Duration::from_micros(2), "of all of them");
        // A copy of nothing has no buckets.
        assert_eq!(later.since(&Latency::default()), later);
        assert_eq!(later.since(&later).count(), 0);
        let anew = Latency::default().since(&later);
        assert_eq!((anew.count(), anew.total()), (0, Duration::ZERO));
    }

    #[test]
    fn a_sum_has_the_requests_of_both() {
        let recorder = Recorder::default();
        recorder.record(1_000);
        let mut sum = Latency::default();
        sum.add(&recorder.read());
        sum.add(&recorder.read());
        assert_eq!((sum.count(), sum.total()), (2, Duration::from_nanos(2_000)));
        let cumulative: Vec<_> = sum.cumulative().collect();
        assert_eq!(cumulative.last().map(|(_, seen)| *seen), Some(2));
        assert!(cumulative.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
    }
}
