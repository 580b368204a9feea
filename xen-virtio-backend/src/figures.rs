//! Counters of a device.

use serde::{Serialize, de::DeserializeOwned};

/// What a device has done up to some time: counters, and gauges of that time.
///
/// A guest that is rebooted gets new devices. Their figures go on where those of the same devices before have ended: the
/// supervisor adds them.
pub trait Figures: Clone + Send + Serialize + DeserializeOwned + 'static {
    /// Adds those of another device, in whose place this one is.
    fn add(&mut self, other: &Self);
}

/// One counter.
impl Figures for u64 {
    fn add(&mut self, other: &Self) {
        *self = self.saturating_add(*other);
    }
}

/// Nothing is counted.
impl Figures for () {
    fn add(&mut self, (): &()) {}
}
