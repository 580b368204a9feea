use super::pool::Buffer;
use crate::engine::Io;

/// The next step of a slot's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The operation itself, or what is left of it.
    Operation,
    /// A sync, after the operation, to make it durable.
    Sync,
}

/// An operation in the engine.
pub(super) struct Slot {
    pub(super) io: Io,
    pub(super) stage: Stage,
    /// It may be tried without the ring first.
    pub(super) try_inline: bool,
    /// The kernel would have blocked: submit it with `IOSQE_ASYNC`, to be done by a kernel thread.
    pub(super) force_async: bool,
    /// Direct I/O refused its memory: use a bounce buffer.
    pub(super) needs_bounce: bool,
    /// The bounce buffer that its data is in.
    pub(super) buffer: Option<Buffer>,
    /// Its position in the ring, while it is there.
    pub(super) position: Option<u32>,
}

/// The operations in the engine, by the number that the kernel returns with a completion (`user_data`).
///
/// An [`Io`] stays here while the kernel may access its memory. The vector may grow and move it: the list
/// of segments and the guest memory are elsewhere.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
}

impl Slots {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    /// The number of operations.
    pub(super) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    pub(super) fn insert(&mut self, io: Io, try_inline: bool) -> u32 {
        let slot = Some(Slot {
            io,
            stage: Stage::Operation,
            try_inline,
            force_async: false,
            needs_bounce: false,
            buffer: None,
            position: None,
        });
        let index = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(index as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        index
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// All numbers that an operation may have.
    pub(super) fn indices(&self) -> std::ops::Range<u32> {
        0..self.slots.len() as u32
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Io> {
        let slot = self.slots.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(slot.io)
    }
}
