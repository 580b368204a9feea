//! The windows of one task over a run.

use std::collections::BTreeMap;

use crate::quartiles::Quartiles;
use crate::window::Metrics;

/// A task's windows, by repetition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// The one window of each repetition that is believed.
    believed: BTreeMap<usize, Metrics>,
    /// How many are not.
    rejected: usize,
}

impl Series {
    pub(crate) fn believe(&mut self, repetition: usize, metrics: Metrics) {
        self.believed.insert(repetition, metrics);
    }

    pub(crate) fn reject(&mut self) {
        self.rejected += 1;
    }

    pub(crate) fn believed(&self) -> usize {
        self.believed.len()
    }

    pub(crate) fn rejected(&self) -> usize {
        self.rejected
    }

    /// `None` if no window is believed.
    pub(crate) fn quartiles(&self, metric: fn(&Metrics) -> f64) -> Option<Quartiles> {
        Quartiles::of(self.believed.values().map(metric))
    }

    /// The ratios to `peer`, one for each repetition in which a window of both is believed.
    ///
    /// The two are taken within seconds, so a time in which the machine is slow stretches both and
    /// not their ratio. The ratio of two medians has no such luck: each may be of another time.
    pub(crate) fn ratios(&self, peer: &Self, metric: fn(&Metrics) -> f64) -> Vec<f64> {
        let pairs = self.believed.iter().filter_map(|(repetition, ours)| {
            peer.believed.get(repetition).map(|theirs| (metric(ours), metric(theirs)))
        });
        pairs.map(|(ours, theirs)| ours / theirs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P50: fn(&Metrics) -> f64 = |metrics| metrics.p50_us;

    /// Of windows with these medians; `None` is one that was rejected.
    fn series(p50: &[Option<f64>]) -> Series {
        let mut series = Series::default();
        for (repetition, p50) in p50.iter().enumerate() {
            match *p50 {
                Some(p50_us) => series.believe(
                    repetition,
                    Metrics {
                        iops: 1.0,
                        p50_us,
                        p99_us: 1.0,
                        p999_us: 1.0,
                        cpu_us_per_request: 1.0,
                        mb_per_s: 1.0,
                    },
                ),
                None => series.reject(),
            }
        }
        series
    }

    /// Every other repetition falls into a time in which the machine is slow, and one window of the
    /// peer's is rejected.
    #[test]
    fn a_slow_machine_stretches_both_windows_of_a_pair_and_not_their_ratio() {
        let windows = |value: f64| [1.4, 1.0, 1.4, 1.0, 1.4, 1.0].map(|slow| Some(value * slow));
        let (ours, mut theirs) = (windows(3.0), windows(4.0));
        theirs[3] = None;
        let (ours, theirs) = (series(&ours), series(&theirs));

        let ratios = ours.ratios(&theirs, P50);
        assert_eq!(ratios.len(), 5);
        assert!(ratios.iter().all(|ratio| (ratio - 0.75).abs() < 1e-9), "{ratios:?}");

        let [ours, theirs] = [ours, theirs].map(|series| series.quartiles(P50).unwrap().median);
        assert!((ours / theirs - 0.75).abs() > 0.1, "medians of each: {}", ours / theirs);
    }

    #[test]
    fn windows_of_different_repetitions_are_no_pair() {
        let (ours, theirs) = (series(&[None, Some(1.0)]), series(&[Some(2.0), None]));
        assert_eq!(ours.ratios(&theirs, P50), [0.0; 0]);
        assert_eq!((ours.believed(), ours.rejected()), (1, 1));
    }
}
