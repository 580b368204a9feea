//! The MSI-X table and the pending bits, as the driver sees them.

use std::sync::Arc;

use virtio_dev::{Ignored, IrqLine, Messages, Notifications, WriteOutcome};

use super::vector::Target;
use super::{Function, MsiLines, VectorState, Vectors};
use crate::bytes::{halves, high, join, low, written_halves};
use crate::layout::TABLE_ENTRY;

/// The mask bit of an entry's vector control.
const MASK_BIT: u32 = 1;

/// An entry of the table.
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
    /// What the message raises, once that was asked.
    line: Option<Option<Arc<dyn IrqLine>>>,
}

/// The MSI-X table. What the driver writes there becomes the targets of the [`Vectors`].
pub(crate) struct Table {
    entries: Vec<Entry>,
    vectors: Arc<Vectors>,
    lines: Box<dyn MsiLines>,
}

impl Table {
    /// A table in this state, for a function that sends nothing yet, with so many queues.
    pub(crate) fn new(queues: usize, state: &[VectorState], lines: Box<dyn MsiLines>) -> Self {
        let vectors = Arc::new(Vectors::new(queues, state));
        let entry = |&VectorState { address, data, masked, .. }: &VectorState| Entry {
            address,
            data,
            masked,
            line: None,
        };
        Self { entries: state.iter().map(entry).collect(), vectors, lines }
    }

    /// What sends the messages.
    pub(crate) fn messages(&self) -> Notifications {
        Notifications::Messages(Arc::clone(&self.vectors) as Arc<dyn Messages>)
    }

    pub(crate) fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    pub(crate) fn state(&self) -> Vec<VectorState> {
        let vector = |(index, entry): (u16, &Entry)| VectorState {
            address: entry.address,
            data: entry.data,
            masked: entry.masked,
            pending: self.vectors.is_pending(index),
        };
        (0..).zip(&self.entries).map(vector).collect()
    }

    /// Reads 4 or 8 bytes of the table, aligned; anything else reads 0.
    pub(crate) fn read(&self, offset: u32, data: &mut [u8]) {
        for (offset, half) in halves(offset, data) {
            let (index, part) = split(offset);
            let Some(entry) = self.entries.get(index) else { continue };
            let value = match part {
                0 => low(entry.address),
                4 => high(entry.address),
                8 => entry.data,
                _ => u32::from(entry.masked),
            };
            half.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Takes a write of 4 or 8 bytes, aligned.
    pub(crate) fn write(&mut self, offset: u32, data: &[u8], function: Function) -> WriteOutcome {
        let mut outcome = WriteOutcome::Ignored(Ignored::Width);
        for (offset, value) in written_halves(offset, data) {
            let (index, part) = split(offset);
            let Some(entry) = self.entries.get_mut(index) else { continue };
            let (address, data) = (entry.address, entry.data);
            match part {
                0 => entry.address = join(high(address), value),
                4 => entry.address = join(value, low(address)),
                8 => entry.data = value,
                _ => entry.masked = value & MASK_BIT != 0,
            }
            if (entry.address, entry.data) != (address, data) {
                entry.line = None;
            }
            if let Ok(index) = u16::try_from(index) {
                self.update(index, function);
            }
            outcome = WriteOutcome::Done;
        }
        outcome
    }

    /// Reads 4 or 8 bytes of the pending bits, aligned; anything else reads 0.
    pub(crate) fn read_pending_bits(&self, offset: u32, data: &mut [u8]) {
        for (offset, half) in halves(offset, data) {
            let first = offset.saturating_mul(8);
            let bit = |nth: u32| {
                let vector = u16::try_from(first.saturating_add(nth)).ok();
                let pending = vector.is_some_and(|vector| self.vectors.is_pending(vector));
                u32::from(pending).checked_shl(nth).unwrap_or(0)
            };
            let bits = (0..u32::BITS).fold(0, |bits, nth| bits | bit(nth));
            half.copy_from_slice(&bits.to_le_bytes());
        }
    }

    /// The configuration space says something else of all vectors.
    pub(crate) fn set_function(&mut self, function: Function) {
        if !function.enabled {
            self.vectors.set_enabled(false);
        }
        for index in (0..).take(self.entries.len()) {
            self.update(index, function);
        }
        if function.enabled {
            self.vectors.set_enabled(true);
        }
    }

    /// Makes the target of a vector what its entry, and what all have in common, say.
    fn update(&mut self, index: u16, function: Function) {
        let Some(entry) = self.entries.get_mut(usize::from(index)) else { return };
        let target = if entry.masked || !function.sends() {
            Target::Masked
        } else {
            let line = || self.lines.line(entry.address, entry.data);
            entry.line.get_or_insert_with(line).clone().map_or(Target::Nowhere, Target::Line)
        };
        self.vectors.set_target(index, target);
    }
}

/// The entry that an offset in the table belongs to, and the offset in it.
fn split(offset: u32) -> (usize, u32) {
    let index = offset.checked_div(TABLE_ENTRY).and_then(|index| usize::try_from(index).ok());
    (index.unwrap_or(usize::MAX), offset.checked_rem(TABLE_ENTRY).unwrap_or(0))
}
