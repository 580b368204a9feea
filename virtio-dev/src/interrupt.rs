//! The interrupt of a device: its status bits, and the notifications of the driver.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::sync::{AtomicU32, AtomicU64};
use crate::{Delivery, Messages, Notifications, Status};

/// Bit 0 of the interrupt status: a used buffer notification (virtio 1.2 §4.1.4.5, §4.2.2).
pub(crate) const USED_BUFFER: u8 = 1;
/// Bit 1: a configuration change notification.
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
    notifications: Notifications,
    word: AtomicU64,
    generation: AtomicU32,
    raised: AtomicU64,
    suppressed: AtomicU64,
}

/// A handle on the interrupt of a device, for the live queue of one of its queues. Cheap to clone;
/// all of a device share one state.
///
/// A handle belongs to one run of the device, from one reset to the next: one that outlived a
/// reset does nothing.
///
/// # When a line is raised
/// Only if the event's bit was clear. If it was set, whoever set it has raised the line, or is
/// about to, for a bit the guest has not acknowledged since. All changes of the word are
/// read-modify-writes, hence in one order: the guest's acknowledgement comes after this event,
/// which comes after its used entry was published, and a driver looks at the rings after it
/// acknowledged (Linux `vm_interrupt` acknowledges, then calls the queues). So it finds the entry,
/// without another edge.
///
/// # When a message is sent
/// For each event, as nobody acknowledges one. The interrupt status is kept as virtio 1.2 §4.1.4.5.1
/// asks: always for configuration changes, for used buffers only while the driver has not enabled
/// messages. So a queue's message touches nothing that another queue's worker writes, but for the count.
#[derive(Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
    epoch: u32,
    queue: u16,
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        f.debug_struct("Interrupt")
            .field("queue", &self.queue)
            .field("epoch", &self.epoch)
            .field("current_epoch", &word.epoch)
            .field("status", &word.status)
            .field("pending", &word.pending)
            .finish_non_exhaustive()
    }
}

impl Interrupt {
    pub(crate) fn new(notifications: Notifications) -> Self {
        Self {
            shared: Arc::new(Shared {
                notifications,
                word: AtomicU64::new(0),
                generation: AtomicU32::new(0),
                raised: AtomicU64::new(0),
                suppressed: AtomicU64::new(0),
            }),
            epoch: 0,
            queue: 0,
        }
    }

    /// The handle of a queue, in the same run.
    pub(crate) fn of_queue(&self, queue: u16) -> Self {
        Self { shared: Arc::clone(&self.shared), epoch: self.epoch, queue }
    }

    /// Used buffers were published in the queue: the driver is notified as its transport does it.
    /// Nothing before `DRIVER_OK` (virtio 1.2 §2.1.2), or after `FAILED` or a reset.
    ///
    /// Whether the driver wants to hear of them is the queue's to know:
    /// [`LiveQueue::publish`](crate::LiveQueue::publish) asks, then calls this.
    pub fn used_buffer(&self) {
        match &self.shared.notifications {
            Notifications::Line(_) => self.raise(Status::empty(), USED_BUFFER),
            Notifications::Messages(messages) => self.send(&**messages),
        }
    }

    /// The configuration space changed: a new generation, and the notification.
    pub fn config_change(&self) {
        self.next_generation();
        self.config_event(Status::empty());
    }

    /// The device can't go on: sets `DEVICE_NEEDS_RESET`, with a configuration change
    /// notification if the driver is up (virtio 1.2 §2.1.2).
    pub fn needs_reset(&self) {
        self.config_event(Status::DEVICE_NEEDS_RESET);
    }

    /// How often the line was raised, or a message sent.
    pub fn raised(&self) -> u64 {
        self.shared.raised.load(Ordering::Relaxed)
    }

    /// How many events found their bit still set and left the line alone, or their message masked.
    pub fn suppressed(&self) -> u64 {
        self.shared.suppressed.load(Ordering::Relaxed)
    }

    /// Sets `status` and, if the driver is up, `bit`, and raises the line, if there is one, for it.
    #[inline]
    fn raise(&self, status: Status, bit: u8) {
        let (old, new) = self.set_pending(status, bit);
        // Not even now: the driver isn't up, or has given up, or this handle is stale.
        if new.pending & bit == 0 {
            return;
        }
        if old.pending & bit == 0 {
            self.shared.raised.fetch_add(1, Ordering::Relaxed);
            if let Notifications::Line(line) = &self.shared.notifications {
                line.raise();
            }
        } else {
            self.shared.suppressed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends the message of the queue.
    #[inline(never)]
    fn send(&self, messages: &dyn Messages) {
        let word = self.word();
        if word.epoch != self.epoch || !word.status.is_live() {
            return;
        }
        match messages.used_buffer(self.queue) {
            Delivery::Disabled => {
                self.set_pending(Status::empty(), USED_BUFFER);
            }
            delivery => self.count(delivery),
        }
    }

    /// Sets `status`, and notifies of a configuration change.
    fn config_event(&self, status: Status) {
        match &self.shared.notifications {
            Notifications::Line(_) => self.raise(status, CONFIG_CHANGE),
            Notifications::Messages(messages) => {
                let (old, new) = self.set_pending(status, CONFIG_CHANGE);
                if old.epoch == self.epoch && new.status.is_live() {
                    self.count(messages.config_change());
                }
            }
        }
    }

    /// Sets `status` and, if the driver is up, `bit`.
    #[inline]
    fn set_pending(&self, status: Status, bit: u8) -> (Word, Word) {
        self.update(|word| {
            word.status |= status;
            if word.status.is_live() {
                word.pending |= bit;
            }
        })
    }

    fn count(&self, delivery: Delivery) {
        let count = match delivery {
            Delivery::Sent => &self.shared.raised,
            Delivery::Withheld => &self.shared.suppressed,
            Delivery::Disabled => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
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

    /// The pending bits, which this clears.
    pub(crate) fn take_pending(&self) -> u8 {
        let (old, _) = self.update(|word| word.pending = 0);
        old.pending
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
        if let (Notifications::Line(line), 1..) = (&self.shared.notifications, pending) {
            self.count(Delivery::Sent);
            line.raise();
        }
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
