//! What a live queue remembers from one operation to the next.

use super::chain::Buffer;
use super::events::QueueEvents;
use super::walk::{RingFault, Walker};
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
    /// Heads of the used entries written but not published.
    pub(super) staged: Vec<u16>,
    pub(super) in_flight: u16,
    /// By head: the chain is in flight, or its used entry is not published. The driver can't know
    /// that it has its descriptors back before, so at most `size` entries are ever staged.
    pub(super) taken: Vec<bool>,
    pub(super) walker: Walker,
    pub(super) fault: Option<RingFault>,
    spare: Vec<Vec<Buffer>>,
    spare_room: usize,
}

impl State {
    pub(super) fn new(config: &QueueConfig, events: Box<dyn QueueEvents>) -> Self {
        let size = usize::from(config.size);
        Self {
            index: config.index,
            size: config.size,
            event_idx: config.event_idx,
            events,
            next_avail: config.next_avail,
            seen_avail: config.next_avail,
            next_used: config.next_used,
            staged: Vec::with_capacity(size),
            in_flight: 0,
            taken: vec![false; size],
            walker: Walker::new(config.size, config.indirect),
            fault: None,
            spare: Vec::new(),
            spare_room: 0,
        }
    }

    #[inline]
    pub(super) fn reuse(&mut self) -> Vec<Buffer> {
        let buffers = self.spare.pop().unwrap_or_default();
        self.spare_room = self.spare_room.saturating_sub(buffers.capacity());
        buffers
    }

    #[inline]
    pub(super) fn recycle(&mut self, mut buffers: Vec<Buffer>) {
        let room = self.spare_room.saturating_add(buffers.capacity());
        if room <= SPARE_BUFFERS {
            buffers.clear();
            self.spare.push(buffers);
            self.spare_room = room;
        }
    }

    #[cold]
    pub(super) fn break_with(&mut self, fault: RingFault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            // Nothing more is popped.
            self.seen_avail = self.next_avail;
            self.events.needs_reset();
        }
    }
}
