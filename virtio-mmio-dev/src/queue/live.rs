//! The live queue: pop, complete, publish.

use std::ops::Deref;
use std::sync::atomic::{Ordering, fence};

use vm_memory::GuestAddressSpace;

use super::area::Lost;
use super::chain::{Buffer, Chain};
use super::events::QueueEvents;
use super::layout::{AVAIL_ENTRY, INDEX, Layout, USED_ENTRY, event_offset, passed, slot};
use super::walk::{RingFault, Walker};
use crate::{QueueConfig, QueueError};

/// `VIRTQ_USED_F_NO_NOTIFY`
const NO_NOTIFY: u16 = 1;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT`
const NO_INTERRUPT: u16 = 1;
/// How many buffers the vectors kept for reuse may have room for, all together: 1 MiB.
const SPARE_BUFFERS: usize = 65536;

/// Where a queue stands, for a device that is to be resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Next available entry to take.
    pub next_avail: u16,
    /// Next used entry to write: the used index as last published.
    pub next_used: u16,
}

/// A live split virtqueue, owned by the one worker that serves it.
///
/// `R` gives access to the rings; its guard is taken once and held, so dropping the queue releases
/// the rings. `D` gives access to the requests; each chain holds a guard of its own.
///
/// A driver that breaks the ring's rules breaks the queue: `DEVICE_NEEDS_RESET` is set, nothing
/// more is popped, and [`fault`](Self::fault) says why. Chains in flight can still be completed.
/// Buffer addresses are the request's matter: they are not looked at here.
///
/// Memory: a chain is at most `size` buffers of 16 bytes, and at most `size` chains are in flight.
pub struct LiveQueue<R: GuestAddressSpace, D: GuestAddressSpace> {
    index: u16,
    size: u16,
    event_idx: bool,
    rings: R::T,
    requests: D,
    events: Box<dyn QueueEvents>,
    layout: Layout,
    next_avail: u16,
    next_used: u16,
    /// Available entries read but not popped, in reverse.
    heads: Vec<u16>,
    /// Completed but not published.
    staged: Vec<(u16, u32)>,
    in_flight: u16,
    /// By head: the chain is in flight, or its used entry is not published. The driver can't know
    /// that it has its descriptors back before, so at most `size` entries are ever staged.
    taken: Vec<bool>,
    walker: Walker,
    spare: Vec<Vec<Buffer>>,
    spare_room: usize,
    fault: Option<RingFault>,
}

impl<R: GuestAddressSpace, D: GuestAddressSpace> LiveQueue<R, D> {
    /// Takes a ready queue into service, notifications enabled. Treat it as notified: a kick may
    /// have come before. Over virtio-mmio `events` is the transport's
    /// [`interrupt`](crate::MmioTransport::interrupt).
    ///
    /// # Errors
    /// Rings that are misaligned, run past the address space's end, or are not in the memory that
    /// `rings` gives. `DEVICE_NEEDS_RESET` is set then: it is the driver's mistake.
    pub fn new(
        config: &QueueConfig,
        rings: &R,
        requests: D,
        events: impl QueueEvents + 'static,
    ) -> Result<Self, QueueError> {
        match Self::checked(config, rings) {
            Ok((layout, rings)) => Self::start(config, layout, rings, requests, Box::new(events)),
            Err(error) => {
                events.needs_reset();
                Err(error)
            }
        }
    }

    fn checked(config: &QueueConfig, rings: &R) -> Result<(Layout, R::T), QueueError> {
        let layout = Layout::new(config)?;
        let rings = rings.memory();
        layout.check(config.index, rings.deref())?;
        Ok((layout, rings))
    }

    fn start(
        config: &QueueConfig,
        layout: Layout,
        rings: R::T,
        requests: D,
        events: Box<dyn QueueEvents>,
    ) -> Result<Self, QueueError> {
        let size = usize::from(config.size);
        let mut queue = Self {
            index: config.index,
            size: config.size,
            event_idx: config.event_idx,
            rings,
            requests,
            events,
            layout,
            next_avail: config.next_avail,
            next_used: config.next_used,
            heads: Vec::with_capacity(size),
            staged: Vec::with_capacity(size),
            in_flight: 0,
            taken: vec![false; size],
            walker: Walker::new(config.size, config.indirect),
            spare: Vec::new(),
            spare_room: 0,
            fault: None,
        };
        // A resumed queue may have notifications disabled; EVENT_IDX wants the flags 0 at all times
        // (virtio 1.2 §2.7.10.2).
        match queue.store_used_flags(0).and_then(|()| queue.arm()) {
            Ok(_) => Ok(queue),
            Err(Lost) => {
                queue.events.needs_reset();
                Err(layout.used.inaccessible(config.index))
            }
        }
    }

    /// Takes the next chain. `None` if there is none, or the queue [is broken](Self::is_broken).
    pub fn pop(&mut self) -> Option<Chain<D>> {
        if self.fault.is_some() {
            return None;
        }
        match self.try_pop() {
            Ok(chain) => chain,
            Err(fault) => {
                self.break_with(fault);
                None
            }
        }
    }

    /// Gives a chain back, in any order: drops its guard, then stages its used entry, which the
    /// driver sees with the next [`publish`](Self::publish).
    ///
    /// `len` counts the bytes written from the first writable one on (virtio 1.2 §2.7.8.2); more
    /// than the chain has room for is cut to that.
    pub fn complete(&mut self, chain: Chain<D>, len: u32) {
        let Chain { head, guard, buffers, writable_len, .. } = chain;
        drop(guard);
        self.recycle(buffers);
        if self.taken.get(usize::from(head)) != Some(&true) {
            return self.break_with(RingFault::NotInFlight(head));
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        let len = len.min(u32::try_from(writable_len).unwrap_or(u32::MAX));
        self.staged.push((head, len));
    }

    /// Publishes all staged entries with one store of the index, and interrupts the driver if it
    /// wants to know. Gives whether it asked for an interrupt.
    pub fn publish(&mut self) -> bool {
        if self.staged.is_empty() {
            return false;
        }
        match self.try_publish() {
            Ok(wanted) => {
                if wanted {
                    self.events.used_buffer();
                }
                wanted
            }
            Err(Lost) => {
                self.break_with(RingFault::Ring);
                false
            }
        }
    }

    /// Asks the driver not to kick. A hint: kicks may still come. With `EVENT_IDX` there is nothing
    /// to do, as a driver kicks once for each time [`enable_notification`](Self::enable_notification)
    /// armed it.
    pub fn disable_notification(&mut self) {
        if !self.event_idx && self.store_used_flags(NO_NOTIFY).is_err() {
            self.break_with(RingFault::Ring);
        }
    }

    /// Asks the driver to kick for the next chain. `true` if one came meanwhile, for which there
    /// may be no kick: go on popping.
    pub fn enable_notification(&mut self) -> bool {
        if self.fault.is_some() {
            return false;
        }
        match self.arm() {
            Ok(more) => more,
            Err(Lost) => {
                self.break_with(RingFault::Ring);
                false
            }
        }
    }

    /// The queue's index.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The queue's size.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// How many chains are popped and not completed.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// The driver broke the ring's rules: `DEVICE_NEEDS_RESET` is set, nothing is popped any more.
    pub fn is_broken(&self) -> bool {
        self.fault.is_some()
    }

    /// What broke the queue.
    pub fn fault(&self) -> Option<RingFault> {
        self.fault
    }

    /// Where the queue stands. Chains in flight are behind `next_avail` already.
    pub fn state(&self) -> Positions {
        Positions { next_avail: self.next_avail, next_used: self.next_used }
    }

    fn try_pop(&mut self) -> Result<Option<Chain<D>>, RingFault> {
        let head = match self.heads.pop() {
            Some(head) => head,
            None => {
                self.refill()?;
                let Some(head) = self.heads.pop() else {
                    return Ok(None);
                };
                head
            }
        };
        match self.taken.get(usize::from(head)) {
            Some(false) => {}
            Some(true) => return Err(RingFault::HeadInFlight(head)),
            None => return Err(RingFault::DescriptorIndex(head)),
        }
        let guard = self.requests.memory();
        let mut buffers = self.reuse();
        let descriptors = self.layout.descriptors.view(self.rings.deref())?;
        let totals = self.walker.walk(&descriptors, head, guard.deref(), &mut buffers)?;
        if let Some(taken) = self.taken.get_mut(usize::from(head)) {
            *taken = true;
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        self.in_flight = self.in_flight.saturating_add(1);
        Ok(Some(Chain {
            head,
            guard,
            buffers,
            readable: totals.readable,
            readable_len: totals.readable_len.into(),
            writable_len: totals.writable_len.into(),
        }))
    }

    /// Reads all available entries the driver has published, with one look-up of the ring.
    fn refill(&mut self) -> Result<(), RingFault> {
        let avail = self.layout.avail.view(self.rings.deref())?;
        // Acquire: the entries and descriptors were written before the index.
        let index = u16::from_le(avail.load(INDEX, Ordering::Acquire)?);
        let count = index.wrapping_sub(self.next_avail);
        if count > self.size {
            return Err(RingFault::AvailIndex(count));
        }
        for nth in (0..count).rev() {
            let entry = slot(self.next_avail.wrapping_add(nth), self.size, AVAIL_ENTRY);
            self.heads.push(u16::from_le(avail.load(entry, Ordering::Relaxed)?));
        }
        Ok(())
    }

    fn try_publish(&mut self) -> Result<bool, Lost> {
        let old = self.next_used;
        let mut new = old;
        let used = self.layout.used.view(self.rings.deref())?;
        for (head, len) in self.staged.drain(..) {
            let entry = slot(new, self.size, USED_ENTRY);
            used.store(u32::from(head).to_le(), entry, Ordering::Relaxed)?;
            used.store(len.to_le(), entry.saturating_add(4), Ordering::Relaxed)?;
            if let Some(taken) = self.taken.get_mut(usize::from(head)) {
                *taken = false;
            }
            new = new.wrapping_add(1);
        }
        // Release: the entries, and what the device wrote for them, before the index.
        used.store(new.to_le(), INDEX, Ordering::Release)?;
        self.next_used = new;
        // Either the driver, having armed its event, sees this index, or we see its event: a full
        // barrier on both sides, between the own store and the load of the other's.
        fence(Ordering::SeqCst);
        let avail = self.layout.avail.view(self.rings.deref())?;
        if self.event_idx {
            let event =
                u16::from_le(avail.load(event_offset(self.size, AVAIL_ENTRY), Ordering::Relaxed)?);
            Ok(passed(event, old, new))
        } else {
            let flags = u16::from_le(avail.load::<u16>(0, Ordering::Relaxed)?);
            Ok(flags & NO_INTERRUPT == 0)
        }
    }

    /// Enables notifications, then looks again; gives whether an entry is waiting.
    fn arm(&mut self) -> Result<bool, Lost> {
        if self.event_idx {
            let used = self.layout.used.view(self.rings.deref())?;
            let offset = event_offset(self.size, USED_ENTRY);
            used.store(self.next_avail.to_le(), offset, Ordering::Relaxed)?;
        } else {
            self.store_used_flags(0)?;
        }
        // As in `try_publish`, with the roles swapped.
        fence(Ordering::SeqCst);
        let avail = self.layout.avail.view(self.rings.deref())?;
        let index = u16::from_le(avail.load(INDEX, Ordering::Acquire)?);
        Ok(index != self.next_avail)
    }

    fn store_used_flags(&self, flags: u16) -> Result<(), Lost> {
        let used = self.layout.used.view(self.rings.deref())?;
        used.store(flags.to_le(), 0, Ordering::Relaxed)
    }

    fn reuse(&mut self) -> Vec<Buffer> {
        let buffers = self.spare.pop().unwrap_or_default();
        self.spare_room = self.spare_room.saturating_sub(buffers.capacity());
        buffers
    }

    fn recycle(&mut self, mut buffers: Vec<Buffer>) {
        let room = self.spare_room.saturating_add(buffers.capacity());
        if room <= SPARE_BUFFERS {
            buffers.clear();
            self.spare.push(buffers);
            self.spare_room = room;
        }
    }

    #[cold]
    fn break_with(&mut self, fault: RingFault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            self.heads.clear();
            self.events.needs_reset();
        }
    }
}
