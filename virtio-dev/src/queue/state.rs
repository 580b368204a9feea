//! The state of a live queue between two operations.

use super::chain::Buffer;
use super::events::QueueEvents;
use super::fault::RingFault;
use super::heads::Heads;
use super::walk::Walker;
use crate::QueueConfig;

/// How many buffers the vectors kept for reuse may have room for, all together: 1 MiB.
const SPARE_BUFFERS: usize = 65536;

pub(super) struct State {
    pub(super) index: u16,
    pub(super) size: u16,
    pub(super) event_idx: bool,
    pub(super) events: Box<dyn QueueEvents>,
    pub(super) next_avail: u16,
    /// The driver's index when it was last read.
    pub(super) seen_avail: u16,
    /// The used index as last published.
    pub(super) next_used: u16,
    /// Used entries written but not published.
    pub(super) staged: u16,
    pub(super) in_flight: u16,
    /// The head of the chain that was popped last.
    pub(super) last: Option<u16>,
    pub(super) heads: Heads,
    pub(super) walker: Walker,
    pub(super) fault: Option<RingFault>,
    spare: Vec<Vec<Buffer>>,
    spare_room: usize,
}

impl State {
    pub(super) fn new(config: &QueueConfig, events: Box<dyn QueueEvents>) -> Self {
        Self {
            index: config.index,
            size: config.size,
            event_idx: config.event_idx,
            events,
            next_avail: config.next_avail,
            seen_avail: config.next_avail,
            next_used: config.next_used,
            staged: 0,
            in_flight: 0,
            last: None,
            heads: Heads::new(config.size),
            walker: Walker::new(config),
            fault: None,
            spare: Vec::new(),
            spare_room: 0,
        }
    }

    /// Takes the next available chain, whose head is known.
    pub(super) fn take(&mut self, head: u16) -> Result<(), RingFault> {
        self.heads.take(head)?;
        self.has_taken(head);
        Ok(())
    }

    /// The next available chain, which has this head, is in flight from now on.
    #[inline]
    pub(super) fn has_taken(&mut self, head: u16) {
        self.next_avail = self.next_avail.wrapping_add(1);
        self.in_flight = self.in_flight.wrapping_add(1);
        self.last = Some(head);
    }

    /// Takes back that the chain of this head was popped; whether it was the last one.
    pub(super) fn put_back(&mut self, head: u16) -> bool {
        // A head in flight names one chain, so this one is that which was popped last.
        if self.last != Some(head) || !self.heads.put_back(head) {
            return false;
        }
        self.last = None;
        self.next_avail = self.next_avail.wrapping_sub(1);
        self.in_flight = self.in_flight.wrapping_sub(1);
        if self.fault.is_some() {
            // Nothing more is popped.
            self.seen_avail = self.next_avail;
        }
        true
    }

    #[inline]
    pub(super) fn reuse(&mut self) -> Vec<Buffer> {
        let buffers = self.spare.pop().unwrap_or_default();
        self.spare_room = self.spare_room.wrapping_sub(buffers.capacity());
        buffers
    }

    #[inline]
    pub(super) fn recycle(&mut self, mut buffers: Vec<Buffer>) {
        let room = self.spare_room.wrapping_add(buffers.capacity());
        if room <= SPARE_BUFFERS {
            buffers.clear();
            self.spare.push(buffers);
            self.spare_room = room;
        }
    }

    #[cold]
    pub(super) fn set_broken(&mut self, fault: RingFault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            // Nothing more is popped.
            self.seen_avail = self.next_avail;
            self.events.needs_reset();
        }
    }
}

impl Drop for State {
    /// In a panic of the thread that serves the queue, whose popped chains are never answered.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.set_broken(RingFault::GivenUp);
        }
    }
}
