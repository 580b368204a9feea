//! The layout of a split ring (virtio 1.2 §2.7).

use vm_memory::{GuestMemory, Permissions};

use super::area::{Area, Entry};
use super::descriptor::RawDescriptor;
use crate::{QueueConfig, QueueError};

/// Offset of `idx` in both rings, after `flags`.
pub(super) const INDEX: usize = 2;
/// Offset of the first entry in both rings.
const ENTRIES: usize = 4;
/// An entry of the available ring: a descriptor's index.
pub(super) type Avail = u16;
/// An entry of the used ring: `{ id: le32, len: le32 }`.
pub(super) type Used = [u32; 2];

impl Entry for RawDescriptor {
    const FIRST: usize = 0;
}

impl Entry for Avail {
    const FIRST: usize = ENTRIES;
}

impl Entry for Used {
    const FIRST: usize = ENTRIES;
}

/// The three parts of a ring, aligned and within the address space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) descriptors: Area,
    pub(super) avail: Area,
    pub(super) used: Area,
}

impl Layout {
    pub(super) fn new(config: &QueueConfig) -> Result<Self, QueueError> {
        let (index, size) = (config.index, config.size);
        if !size.is_power_of_two() {
            return Err(QueueError::Size { index, size });
        }
        // The event index follows the entries, if it was negotiated.
        let event = if config.event_idx { size_of::<u16>() } else { 0 };
        let (read, write) = (Permissions::Read, Permissions::Write);
        Ok(Self {
            descriptors: area::<RawDescriptor>(
                config,
                "descriptor table",
                config.desc_table,
                16,
                0,
                read,
            )?,
            avail: area::<Avail>(config, "available ring", config.avail_ring, 2, event, read)?,
            used: area::<Used>(config, "used ring", config.used_ring, 4, event, write)?,
        })
    }

    /// Whether `mem` gives the access that each part needs.
    pub(super) fn check(&self, index: u16, mem: &impl GuestMemory) -> Result<(), QueueError> {
        for area in [self.descriptors, self.avail, self.used] {
            if !area.is_accessible(mem) {
                return Err(area.inaccessible(index));
            }
        }
        Ok(())
    }
}

/// A part of the ring that `config` describes, at `addr`, with `extra` bytes behind its entries.
fn area<T: Entry>(
    config: &QueueConfig,
    part: &'static str,
    addr: u64,
    align: u64,
    extra: usize,
    access: Permissions,
) -> Result<Area, QueueError> {
    let (index, count) = (config.index, config.size);
    let entries = usize::from(count).saturating_mul(size_of::<T>());
    let len = entries.saturating_add(T::FIRST).saturating_add(extra);
    if !addr.is_multiple_of(align) {
        return Err(QueueError::Alignment { index, part, addr, align });
    }
    let end = u64::try_from(len).ok().and_then(|len| addr.checked_add(len));
    if end.is_none() {
        return Err(QueueError::Overflow { index, part, addr, len });
    }
    Ok(Area { part, addr, len, count, access })
}

/// Where the entry of `index`, which runs freely, is in a ring; `size` is a power of two.
#[inline]
pub(super) fn slot(index: u16, size: u16) -> u16 {
    index & size.wrapping_sub(1)
}

/// Whether the entry with the index `event` is among those from `old` to `new`: the driver asked to
/// be notified of it (virtio 1.2 §2.7.7.2, `vring_need_event`).
pub(super) fn need_event(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_passed_if_its_entry_is_among_those_published() {
        for old in [0_u16, 1, 100, 0x7fff, 0xfff0, 0xffff] {
            for count in 0..20 {
                let new = old.wrapping_add(count);
                for event in -30_i16..30 {
                    let event = old.wrapping_add_signed(event);
                    let wanted = (0..count).any(|nth| old.wrapping_add(nth) == event);
                    assert_eq!(need_event(event, old, new), wanted, "{event} {old} {new}");
                }
            }
        }
    }
}
