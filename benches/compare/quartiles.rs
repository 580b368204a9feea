//! Median and quartiles.

/// The middle of a set of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quartiles {
    pub(crate) q1: f64,
    pub(crate) median: f64,
    pub(crate) q3: f64,
}

impl Quartiles {
    /// By linear interpolation between the numbers next to each quartile (Hyndman and Fan's type
    /// 7); `None` of no numbers.
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Self { q1: at(0.25), median: at(0.5), q3: at(0.75) })
    }

    /// How far apart the quartiles are, as a share of the median.
    pub(crate) fn spread(&self) -> f64 {
        (self.q3 - self.q1) / self.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: &[f64]) -> (f64, f64, f64) {
        let Quartiles { q1, median, q3 } = Quartiles::of(numbers.iter().copied()).unwrap();
        (q1, median, q3)
    }

    #[test]
    fn quartiles_stand_where_a_quarter_lies_below() {
        assert_eq!(of(&[5.0, 1.0, 4.0, 2.0, 3.0]), (2.0, 3.0, 4.0));
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0]), (1.75, 2.5, 3.25));
        assert_eq!(of(&[7.0]), (7.0, 7.0, 7.0));
    }

    #[test]
    fn nothing_has_no_middle() {
        assert_eq!(Quartiles::of([]), None);
    }

    #[test]
    fn the_spread_is_relative() {
        assert_eq!(Quartiles { q1: 90.0, median: 100.0, q3: 115.0 }.spread(), 0.25);
    }
}
