//! Looking for the next request for a bounded time, instead of sleeping until the driver kicks.

use std::{
    hint::spin_loop,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use virtio_mmio_dev::QueueConfig;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// Shorter looks never find anything: about what waking a thread costs.
const SHORTEST: Duration = Duration::from_micros(4);
/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// How long to look: longer where that would have spared a sleep, and not at all for a driver that
/// asks rarely.
#[derive(Debug)]
pub(crate) struct Window {
    most: Duration,
    now: Duration,
}

impl Window {
    /// At most `most`; nothing at all if that is zero.
    pub(crate) fn new(most: Duration) -> Self {
        Self { most, now: most }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// A sleep has ended, `idle` after the last request was answered.
    pub(crate) fn slept(&mut self, idle: Duration) {
        if idle <= self.most {
            self.now = (self.now * 2).max(SHORTEST).min(self.most);
        } else {
            self.now /= 2;
            if self.now < SHORTEST {
                self.now = Duration::ZERO;
            }
        }
    }
}

/// The two words of a ring that matter while its worker looks for itself: the driver's index, and
/// what makes the driver kick.
pub(crate) struct Doorbell<'m> {
    avail_index: VolatileSlice<'m>,
    kicks: VolatileSlice<'m>,
    event_idx: bool,
}

impl<'m> Doorbell<'m> {
    /// Of a queue whose rings were found to be in `memory`.
    pub(crate) fn new(memory: &'m GuestMemoryMmap, config: &QueueConfig) -> Option<Self> {
        let word = |ring: u64, offset: u64| {
            memory.get_slice(GuestAddress(ring.checked_add(offset)?), 2).ok()
        };
        // `avail_event` stands behind the used entries (virtio 1.2 §2.7.8), `flags` at the start.
        let kicks = if config.event_idx { 4 + 8 * u64::from(config.size) } else { 0 };
        Some(Self {
            avail_index: word(config.avail_ring, 2)?,
            kicks: word(config.used_ring, kicks)?,
            event_idx: config.event_idx,
        })
    }

    /// Asks the driver not to kick, until the queue is run again.
    fn silence(&self, next_avail: u16) {
        // An event that has passed, or `VIRTQ_USED_F_NO_NOTIFY`.
        let word = if self.event_idx { next_avail.wrapping_sub(1) } else { 1 };
        let _ = self.kicks.store(word.to_le(), 0, Ordering::Relaxed);
    }

    fn has_more(&self, next_avail: u16) -> bool {
        self.avail_index
            .load::<u16>(0, Ordering::Relaxed)
            .is_ok_and(|i| u16::from_le(i) != next_avail)
    }

    /// Looks until `until` for something after `next_avail`; gives up when `stop` says so.
    pub(crate) fn watch(&self, next_avail: u16, until: Instant, stop: impl Fn() -> bool) -> bool {
        self.silence(next_avail);
        loop {
            for _ in 0..LOOKS {
                if self.has_more(next_avail) {
                    return true;
                }
                spin_loop();
            }
            if stop() || Instant::now() >= until {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn an_idle_driver_is_not_looked_for_and_a_busy_one_again() {
        let mut window = Window::new(US * 50);
        for _ in 0..4 {
            window.slept(US * 1000);
        }
        assert_eq!(window.now(), Duration::ZERO);
        window.slept(US * 49);
        assert_eq!(window.now(), SHORTEST);
        for _ in 0..8 {
            window.slept(US * 49);
        }
        assert_eq!(window.now(), US * 50);
    }

    #[test]
    fn zero_is_never() {
        let mut window = Window::new(Duration::ZERO);
        window.slept(Duration::ZERO);
        window.slept(US);
        assert_eq!(window.now(), Duration::ZERO);
    }

    #[test]
    fn the_driver_is_asked_for_silence_and_seen_without_a_kick() {
        for event_idx in [false, true] {
            let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
            let config = QueueConfig {
                index: 0,
                size: 8,
                desc_table: 0x1000,
                avail_ring: 0x2000,
                used_ring: 0x3000,
                event_idx,
                indirect: false,
                next_avail: 0,
                next_used: 0,
            };
            let doorbell = Doorbell::new(&memory, &config).unwrap();
            let soon = Instant::now() + US * 100;
            assert!(!doorbell.watch(0, soon, || false), "nothing there");
            let (at, word) = if event_idx { (0x3044, 0xffff_u16) } else { (0x3000, 1) };
            assert_eq!(memory.read_obj::<u16>(GuestAddress(at)).unwrap(), word);
            memory.write_obj(1_u16, GuestAddress(0x2002)).unwrap();
            assert!(doorbell.watch(0, soon, || true), "seen at the first look");
        }
    }
}
