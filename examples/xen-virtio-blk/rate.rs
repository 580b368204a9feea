//! Rates as an operator writes them: `500`, `10K`, `100M/1G`.

use std::str::FromStr;

use virtio_blk_dev::{Rate, RateLimits};
use xen_virtio_backend::amount;

/// Requests a second. `K`, `M` and `G` are powers of 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iops(pub Rate);

/// Bytes a second. `K`, `M` and `G` are powers of 1024, as in the sizes of disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bps(pub Rate);

impl FromStr for Iops {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        rate(text, 1000).map(Self)
    }
}

impl FromStr for Bps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        rate(text, 1024).map(Self)
    }
}

/// The limits of a disk, in words.
pub(crate) fn describe_limits(limits: &RateLimits) -> String {
    let text = |unit, rate: Option<Rate>| match rate {
        None => format!("no limit of {unit}"),
        Some(Rate { per_second, burst }) => {
            format!("{per_second} {unit} a second ({burst} at once)")
        }
    };
    format!("{}, {}", text("requests", limits.ops), text("bytes", limits.bytes))
}

/// `RATE[/BURST]`. Without a burst, what a second allows may come at once.
fn rate(text: &str, unit: u64) -> Result<Rate, String> {
    let parsed = match text.split_once('/') {
        None => amount(text, unit).map(|rate| (rate, rate)),
        Some((rate, burst)) => amount(rate, unit).zip(amount(burst, unit)),
    };
    parsed
        .filter(|(per_second, burst)| *per_second > 0 && *burst > 0)
        .map(|(per_second, burst)| Rate { per_second, burst })
        .ok_or_else(|| {
            format!("{text:?} should be a rate a second, as 500, 10K, or 10K/20K with a burst")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_unit_and_a_burst() {
        let iops = |text: &str| text.parse().map(|Iops(rate)| (rate.per_second, rate.burst));
        assert_eq!(iops("500"), Ok((500, 500)));
        assert_eq!(iops("10K/2M"), Ok((10_000, 2_000_000)));
        let bps = |text: &str| text.parse().map(|Bps(rate)| (rate.per_second, rate.burst));
        assert_eq!(bps("100M"), Ok((100 << 20, 100 << 20)));
        assert_eq!(bps("1g/4k"), Ok((1 << 30, 4096)));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "",
            "0",
            "K",
            "/",
            "1/",
            "/1",
            "1/0",
            "0/1",
            "-1",
            "1T",
            "1.5K",
            "1/2/3",
            "99999999999G",
            "é",
        ] {
            let error = text.parse::<Bps>().unwrap_err();
            assert!(error.contains("should be a rate"), "{text}: {error}");
        }
    }
}
