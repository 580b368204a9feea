use super::rate_limits::Rate;
use crate::sync::{AtomicU64, Ordering};

/// One limit, without a lock: its state is one number, the theoretical arrival time of the generic cell rate
/// algorithm (ITU-T I.371).
#[derive(Debug)]
pub(crate) struct Limit {
    rate: Rate,
    /// Nanoseconds since the limit began.
    arrival: AtomicU64,
}

impl Limit {
    /// A limit with full credit.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, arrival: AtomicU64::new(0) }
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// The cost of `amount` units, in nanoseconds.
    fn cost(&self, amount: u64) -> u64 {
        let nanos = u128::from(amount).saturating_mul(1_000_000_000);
        // A rate of zero is taken as one, which stops nearly everything, to avoid a division by zero.
        let cost = nanos.checked_div(self.rate.per_second.max(1).into()).unwrap_or(0);
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    /// Reserves `amount` units, and returns when they may start.
    pub(crate) fn reserve(&self, now: u64, amount: u64) -> u64 {
        let burst = self.rate.burst.max(1);
        // More than a burst needs the credit of a whole burst.
        let credit = self.cost(burst.saturating_sub(amount.min(burst)));
        let cost = self.cost(amount);
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        loop {
            let base = arrival.max(now);
            let after = base.saturating_add(cost);
            match self.arrival.compare_exchange_weak(
                arrival,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return base.saturating_sub(credit).max(now),
                Err(other) => arrival = other,
            }
        }
    }

    /// Gives back what was reserved for `amount` units.
    pub(crate) fn give_back(&self, amount: u64) {
        let cost = self.cost(amount);
        let subtract = |arrival: u64| Some(arrival.saturating_sub(cost));
        // Never refused: the closure always has a value.
        let _ = self.arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
    }
}
