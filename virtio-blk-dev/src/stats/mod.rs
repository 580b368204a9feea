//! What a queue has done, for whoever watches it.

mod counters;
mod latency;

pub use counters::{Counters, HostError, OpStats, Stats};
pub use latency::Latency;
