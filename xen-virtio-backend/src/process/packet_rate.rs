//! How many packets come from the process of a guest.

use std::time::{Duration, Instant};

/// Most packets within [`INTERVAL`]. The figures of 16 disks are 17, and a supervisor asks for them some times a second
/// at most; everything else is told a few times in the life of a device.
pub(super) const MAX_PACKETS: u32 = 2048;
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Counts the packets of one process. A guest that has taken it over may send without end, and each packet takes time of
/// the supervisor's main thread.
#[derive(Debug)]
pub(super) struct PacketRate {
    since: Instant,
    packets: u32,
}

impl PacketRate {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), packets: 0 }
    }

    /// Counts one that came `now`. False if it is one too many.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= INTERVAL {
            *self = Self { since: now, packets: 0 };
        }
        self.packets += 1;
        self.packets <= MAX_PACKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_packets_as_are_allowed_may_come_each_second_and_no_more() {
        let begin = Instant::now();
        let mut rate = PacketRate::new();
        for second in 0..3 {
            let now = begin + Duration::from_millis(second * 1001);
            assert!((0..MAX_PACKETS).all(|_| rate.count(now)));
        }
        assert!(!rate.count(begin + Duration::from_millis(2500)));
    }
}
