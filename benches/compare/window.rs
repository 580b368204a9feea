//! A window of time in which a load ran: what was seen, and whether to believe it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use crate::cell::Cell;
use crate::cpu::Spent;

/// How far IOPS × mean latency may be from the depth.
const LITTLE: f64 = 0.10;
/// How much of the time others may take from the client or the device. The idle times it is judged
/// by are ticks of 10 ms, so it can't be much finer.
const FOREIGN: f64 = 0.10;
/// The least length of a window, and of its requests for each one in flight: the first and the
/// last ones are cut off by its ends.
const SHORTEST: Duration = Duration::from_millis(50);
const ROUNDS: u64 = 20;
/// Latencies are kept to a thousandth, up to a minute.
const DIGITS: u8 = 3;
const LONGEST_NS: u64 = 60_000_000_000;

/// Latencies of a window.
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
    sum_ns: u128,
}

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS);
        Ok(Self { histogram: histogram.context("making a histogram")?, sum_ns: 0 })
    }

    #[inline]
    pub(crate) fn record(&mut self, latency: Duration) {
        let ns = latency.as_nanos() as u64;
        self.histogram.saturating_record(ns);
        self.sum_ns += u128::from(ns);
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// What was seen.
pub(crate) struct Window {
    /// From the first submission on.
    pub(crate) elapsed: Duration,
    /// Of all requests that completed within.
    pub(crate) latencies: Latencies,
    pub(crate) spent: Spent,
    /// Requests that were in flight at each moment.
    pub(crate) in_flight: u16,
}

/// Why a window is not believed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Doubt {
    /// Depth isn't IOPS × mean latency: the client, or its processor, was away.
    Little,
    Short,
    /// Other processes took processor time from one of the sides.
    Foreign,
}

impl Doubt {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Little => "IOPS × mean latency was not the depth",
            Self::Short => "too short",
            Self::Foreign => "others took more than a tenth of a side's processor time",
        }
    }
}

/// The numbers of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Metrics {
    pub(crate) iops: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) cpu_us_per_request: f64,
    pub(crate) mb_per_s: f64,
}

impl Window {
    /// The numbers, if they can be believed.
    pub(crate) fn judge(&self, cell: &Cell) -> Result<Metrics, Doubt> {
        let requests = self.latencies.histogram.len();
        let seconds = self.elapsed.as_secs_f64();
        if self.elapsed < SHORTEST || requests < ROUNDS * u64::from(self.in_flight) {
            return Err(Doubt::Short);
        }
        let iops = requests as f64 / seconds;
        let mean = self.latencies.sum_ns as f64 / 1e9 / requests as f64;
        if (iops * mean / f64::from(self.in_flight) - 1.0).abs() > LITTLE {
            return Err(Doubt::Little);
        }
        if self.spent.foreign > FOREIGN {
            return Err(Doubt::Foreign);
        }
        Ok(Metrics {
            iops,
            p50_us: self.latencies.quantile_us(0.5),
            p99_us: self.latencies.quantile_us(0.99),
            p999_us: self.latencies.quantile_us(0.999),
            cpu_us_per_request: self.spent.device.as_secs_f64() * 1e6 / requests as f64,
            mb_per_s: iops * f64::from(cell.bytes) / 1e6,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Client, Op};

    const CELL: Cell =
        Cell { op: Op::Read, bytes: 4096, depth: 4, queues: 1, client: Client::Spins };

    /// 4 in flight, each 10 µs: 400 000 requests a second.
    fn window(requests: u64, latency_us: u64, elapsed_ms: u64, foreign: f64) -> Window {
        let mut latencies = Latencies::new().unwrap();
        for _ in 0..requests {
            latencies.record(Duration::from_micros(latency_us));
        }
        Window {
            elapsed: Duration::from_millis(elapsed_ms),
            latencies,
            spent: Spent { device: Duration::from_millis(elapsed_ms / 2), foreign },
            in_flight: 4,
        }
    }

    #[test]
    fn a_window_that_obeys_littles_law_is_believed() {
        let metrics = window(40_000, 10, 100, 0.0).judge(&CELL).unwrap();
        assert_eq!(metrics.iops, 400_000.0);
        assert_eq!(metrics.mb_per_s, 400_000.0 * 4096.0 / 1e6);
        assert_eq!(metrics.cpu_us_per_request, 1.25);
        assert!((metrics.p50_us / 10.0 - 1.0).abs() < 0.001, "{metrics:?}");
    }

    #[test]
    fn one_that_breaks_it_is_not() {
        assert!(window(36_400, 10, 100, 0.0).judge(&CELL).is_ok(), "9 % off");
        assert_eq!(window(35_000, 10, 100, 0.0).judge(&CELL), Err(Doubt::Little), "idle between");
        assert_eq!(window(45_000, 10, 100, 0.0).judge(&CELL), Err(Doubt::Little), "too many");
    }

    #[test]
    fn one_with_few_requests_or_little_time_is_not() {
        assert_eq!(window(79, 5000, 100, 0.0).judge(&CELL), Err(Doubt::Short));
        assert_eq!(window(16_000, 10, 40, 0.0).judge(&CELL), Err(Doubt::Short));
    }

    #[test]
    fn one_whose_processor_was_shared_is_not() {
        assert_eq!(window(40_000, 10, 100, 0.11).judge(&CELL), Err(Doubt::Foreign));
        assert!(window(40_000, 10, 100, 0.09).judge(&CELL).is_ok());
    }

    #[test]
    fn quantiles_are_right_to_a_thousandth() {
        let mut latencies = Latencies::new().unwrap();
        for us in 1..=10_000 {
            latencies.record(Duration::from_micros(us));
        }
        for (quantile, expected) in [(0.5, 5000.0), (0.99, 9900.0), (0.999, 9990.0)] {
            let got = latencies.quantile_us(quantile);
            assert!((got / expected - 1.0).abs() <= 0.001, "{quantile}: {got}");
        }
    }
}
