//! The counters of a queue.

mod counters;
mod host_error;
mod latency;
mod queue_stats;
mod stall_timer;

pub use counters::Counters;
pub use host_error::HostError;
pub use latency::Latency;
pub use queue_stats::{OpStats, Stats};
