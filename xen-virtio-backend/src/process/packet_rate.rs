//! How many packets come from the process of a guest.

use std::time::{Duration, Instant};

/// Most packets within [`INTERVAL`] that nobody has asked for. Everything is told a few times in the life of a device,
/// but figures, which are asked for.
pub(super) const MAX_PACKETS: u32 = 2048;
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// Most packets that answer one: the figures of as many devices.
const ANSWERS: u32 = 64;

/// Counts the packets of one process. A guest that has taken it over may send without end, and each packet takes time of
/// the supervisor's main thread.
#[derive(Debug)]
pub(super) struct PacketRate {
    since: Instant,
    packets: u32,
    allowed: u32,
}

impl PacketRate {
    pub(super) fn new() -> Self {
        Self::since(Instant::now())
    }

    fn since(since: Instant) -> Self {
        Self { since, packets: 0, allowed: MAX_PACKETS }
    }

    /// One was sent to the process, which answers it.
    pub(super) fn sent(&mut self) {
        self.allowed = self.allowed.saturating_add(ANSWERS);
    }

    /// Counts one that came `now`. False if it is one too many.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= INTERVAL {
            *self = Self::since(now);
        }
        self.packets = self.packets.saturating_add(1);
        self.packets <= self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_packets_as_are_allowed_may_come_each_second_and_no_more() {
        let begin = Instant::now();
        let mut rate = PacketRate::since(begin);
        for second in 0..3 {
            let now = begin + Duration::from_millis(second * 1001);
            assert!((0..MAX_PACKETS).all(|_| rate.count(now)));
        }
        assert!(!rate.count(begin + Duration::from_millis(2500)));
    }

    #[test]
    fn answers_are_not_too_many_however_often_a_process_is_asked() {
        let now = Instant::now();
        let mut rate = PacketRate::since(now);
        for _ in 0..2 * MAX_PACKETS {
            rate.sent();
            assert!((0..ANSWERS).all(|_| rate.count(now)));
        }
    }
}
