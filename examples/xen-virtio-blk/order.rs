//! What an operator may ask of a disk that is served.

use serde::{Deserialize, Serialize};
use virtio_blk_dev::{Rate, RateLimits};

/// What an operator may ask of a disk that is served.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Order {
    /// To take on the size that its image has now.
    Resize,
    /// To have other limits.
    Limit(LimitChange),
}

/// Other limits; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitChange {
    /// Requests a second.
    pub ops: Option<Limit>,
    /// Bytes a second.
    pub bytes: Option<Limit>,
}

/// A limit, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// There is none.
    Unlimited,
    /// This one.
    To(Rate),
}

impl LimitChange {
    /// The limits that it makes of `limits`.
    pub fn of(self, limits: RateLimits) -> RateLimits {
        let change = |old, new: Option<Limit>| match new {
            None => old,
            Some(Limit::Unlimited) => None,
            Some(Limit::To(rate)) => Some(rate),
        };
        RateLimits { ops: change(limits.ops, self.ops), bytes: change(limits.bytes, self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_does_not_name_stays() {
        let rate = |per_second| Rate { per_second, burst: per_second };
        let limits = RateLimits { ops: Some(rate(1)), bytes: Some(rate(2)) };
        let change = |ops, bytes| LimitChange { ops, bytes }.of(limits);
        assert_eq!(change(None, None), limits);
        assert_eq!(change(Some(Limit::Unlimited), None), RateLimits { ops: None, ..limits });
        let to = RateLimits { bytes: Some(rate(3)), ..limits };
        assert_eq!(change(None, Some(Limit::To(rate(3)))), to);
    }
}
