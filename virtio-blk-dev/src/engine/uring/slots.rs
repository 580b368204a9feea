use super::pool::Buffer;
use crate::engine::Io;

/// What is to be done for a slot's operation next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The operation itself, or what is left of it.
    Operation,
    /// The operation is done, and has to be made durable.
    Sync,
}

/// An operation on its way.
pub(super) struct Slot {
    pub(super) io: Io,
    pub(super) stage: Stage,
    /// Nothing has been tried yet.
    pub(super) fresh: bool,
    /// The kernel would have blocked: it is to take a thread of its own for it.
    pub(super) punt: bool,
    /// Direct I/O refused its memory.
    pub(super) refused: bool,
    /// Where its data is in the meantime.
    pub(super) buffer: Option<Buffer>,
    /// Its place in the ring while it is there.
    pub(super) position: Option<u32>,
}

/// Operations by the number that the kernel hands back with their completion.
///
/// An [`Io`] rests here while the kernel may touch the memory it names. The vector may grow, and
/// so move it, at any time: list of segments and guest memory are elsewhere.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
}

impl Slots {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    /// Operations in here.
    pub(super) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    pub(super) fn insert(&mut self, io: Io, fresh: bool) -> u32 {
        let slot = Some(Slot {
            io,
            stage: Stage::Operation,
            fresh,
            punt: false,
            refused: false,
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

    /// Every number that an operation may have.
    pub(super) fn indices(&self) -> std::ops::Range<u32> {
        0..self.slots.len() as u32
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Io> {
        let slot = self.slots.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(slot.io)
    }
}
