//! The interrupt of a device: its status bits, and the line they raise.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Status;
use crate::sync::{AtomicU32, AtomicU64};

/// The interrupt line of one device: edge-triggered, or a level the guest's controller latches.
pub trait IrqLine: Send + Sync {
    /// Raises the line once.
    fn raise(&self);
}

impl<F: Fn() + Send + Sync> IrqLine for F {
    fn raise(&self) {
        self();
    }
}

/// `InterruptStatus` bit 0: a used buffer notification (virtio 1.2 §4.2.2).
pub(crate) const USED_BUFFER: u8 = 1;
/// `InterruptStatus` bit 1: a configuration change notification.
pub(crate) const CONFIG_CHANGE: u8 = 2;

/// The device status, the interrupt status and the epoch, changed together: one atomic word makes
/// "still the same run of the device, and `DRIVER_OK`" part of each event.
#[derive(Clone, Copy)]
struct Word {
    epoch: u32,
    status: Status,
    pending: u8,
}

impl Word {
    fn unpack(word: u64) -> Self {
        let [e0, e1, e2, e3, status, pending, ..] = word.to_le_bytes();
        Self {
            epoch: u32::from_le_bytes([e0, e1, e2, e3]),
            status: Status::from_bits_retain(status),
            pending,
        }
    }

    fn pack(self) -> u64 {
        let [e0, e1, e2, e3] = self.epoch.to_le_bytes();
        u64::from_le_bytes([e0, e1, e2, e3, self.status.bits(), self.pending, 0, 0])
    }
}

struct Shared {
    line: Box<dyn IrqLine>,
    word: AtomicU64,
    generation: AtomicU32,
    raised: AtomicU64,
    suppressed: AtomicU64,
}

/// A handle on the interrupt of a device, for the transport and every live queue. Cheap to clone;
/// the clones share one state.
///
/// A handle belongs to one run of the device, from one reset to the next: one that outlived a
/// reset does nothing.
///
/// # When the line is raised
/// Only if the event's bit was clear. If it was set, whoever set it has raised the line, or is
/// about to, for a bit the guest has not acknowledged since. All changes of the word are
/// read-modify-writes, hence in one order: the guest's acknowledgement comes after this event,
/// which comes after its used entry was published, and a driver looks at the rings after it
/// acknowledged (Linux `vm_interrupt` acknowledges, then calls the queues). So it finds the entry,
/// without another edge.
#[derive(Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
    epoch: u32,
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        f.debug_struct("Interrupt")
            .field("epoch", &self.epoch)
            .field("current_epoch", &word.epoch)
            .field("status", &word.status)
            .field("pending", &word.pending)
            .finish_non_exhaustive()
    }
}

impl Interrupt {
    pub(crate) fn new(line: Box<dyn IrqLine>) -> Self {
        Self {
            shared: Arc::new(Shared {
                line,
                word: AtomicU64::new(0),
                generation: AtomicU32::new(0),
                raised: AtomicU64::new(0),
                suppressed: AtomicU64::new(0),
            }),
            epoch: 0,
        }
    }

    /// Used buffers were published: sets bit 0 and raises the line if the bit was clear. Nothing
    /// before `DRIVER_OK` (virtio 1.2 §2.1.2), or after `FAILED` or a reset.
    ///
    /// Whether the driver wants to hear of them is the queue's to know:
    /// [`LiveQueue::publish`](crate::LiveQueue::publish) asks, then calls this.
    pub fn used_buffer(&self) {
        self.event(Status::empty(), USED_BUFFER);
    }

    /// The configuration space changed: a new generation, and bit 1 as for
    /// [`used_buffer`](Self::used_buffer).
    pub fn config_change(&self) {
        self.next_generation();
        self.event(Status::empty(), CONFIG_CHANGE);
    }

    /// The device can't go on: sets `DEVICE_NEEDS_RESET`, with a configuration change
    /// notification if the driver is up (virtio 1.2 §2.1.2).
    pub fn needs_reset(&self) {
        self.event(Status::DEVICE_NEEDS_RESET, CONFIG_CHANGE);
    }

    /// How often the line was raised.
    pub fn raised(&self) -> u64 {
        self.shared.raised.load(Ordering::Relaxed)
    }

    /// How many events found their bit still set and left the line alone.
    pub fn suppressed(&self) -> u64 {
        self.shared.suppressed.load(Ordering::Relaxed)
    }

    /// Sets `status` and, if the driver is up, `bit`.
    fn event(&self, status: Status, bit: u8) {
        let (old, new) = self.update(|word| {
            word.status |= status;
            if word.status.is_live() {
                word.pending |= bit;
            }
        });
        // Not even now: the driver isn't up, or has given up, or this handle is stale.
        if new.pending & bit == 0 {
            return;
        }
        if old.pending & bit == 0 {
            self.raise();
        } else {
            self.shared.suppressed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Changes the word unless a reset has made this handle stale; gives it before and after.
    fn update(&self, change: impl Fn(&mut Word)) -> (Word, Word) {
        let mut bits = self.shared.word.load(Ordering::Relaxed);
        loop {
            let old = Word::unpack(bits);
            let mut new = old;
            if old.epoch == self.epoch {
                change(&mut new);
            }
            // Exchanged even if nothing changes: the place in the order counts.
            match self.shared.word.compare_exchange_weak(
                bits,
                new.pack(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return (old, new),
                Err(now) => bits = now,
            }
        }
    }

    fn word(&self) -> Word {
        Word::unpack(self.shared.word.load(Ordering::Acquire))
    }

    pub(crate) fn status(&self) -> Status {
        self.word().status
    }

    pub(crate) fn set_status(&self, status: Status) {
        self.update(|word| word.status |= status);
    }

    pub(crate) fn pending(&self) -> u8 {
        self.word().pending
    }

    /// The driver acknowledged `bits`: only these are cleared.
    pub(crate) fn acknowledge(&self, bits: u8) {
        self.update(|word| word.pending &= !bits);
    }

    pub(crate) fn generation(&self) -> u32 {
        self.shared.generation.load(Ordering::Acquire)
    }

    pub(crate) fn next_generation(&self) {
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn restore(&self, status: Status, pending: u8, generation: u32) {
        self.shared.generation.store(generation, Ordering::Release);
        self.update(|word| {
            word.status = status;
            word.pending = pending;
        });
        if pending != 0 {
            self.raise();
        }
    }

    fn raise(&self) {
        self.shared.raised.fetch_add(1, Ordering::Relaxed);
        self.shared.line.raise();
    }

    /// Clears everything; every other handle is stale from here on.
    pub(crate) fn reset(&mut self) {
        let epoch = self.epoch.wrapping_add(1);
        self.update(|word| {
            *word = Word { epoch, status: Status::empty(), pending: 0 };
        });
        self.epoch = epoch;
    }
}
