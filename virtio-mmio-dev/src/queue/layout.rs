//! Where everything is in a split ring (virtio 1.2 §2.7).

use vm_memory::{GuestMemory, Permissions};

use super::area::Area;
use super::walk::DESCRIPTOR;
use crate::{QueueConfig, QueueError};

/// Offset of `idx` in both rings, after `flags`.
pub(super) const INDEX: usize = 2;
/// Offset of the first entry in both rings.
const ENTRIES: usize = 4;
/// Size of an entry of the available ring: a descriptor's index.
pub(super) const AVAIL_ENTRY: usize = 2;
/// Size of an entry of the used ring: `{ id: le32, len: le32 }`.
pub(super) const USED_ENTRY: usize = 8;

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
        let area = |part, addr: u64, align: u64, entry: usize, extra: usize, access| {
            let len = usize::from(size).saturating_mul(entry).saturating_add(extra);
            if !addr.is_multiple_of(align) {
                return Err(QueueError::Alignment { index, part, addr, align });
            }
            let end = u64::try_from(len).ok().and_then(|len| addr.checked_add(len));
            if end.is_none() {
                return Err(QueueError::Overflow { index, part, addr, len });
            }
            Ok(Area { part, addr, len, access })
        };
        // Flags and index; the event only if it was negotiated.
        let extra = if config.event_idx { 6 } else { 4 };
        let (read, write) = (Permissions::Read, Permissions::Write);
        Ok(Self {
            descriptors: area("descriptor table", config.desc_table, 16, DESCRIPTOR, 0, read)?,
            avail: area("available ring", config.avail_ring, 2, AVAIL_ENTRY, extra, read)?,
            used: area("used ring", config.used_ring, 4, USED_ENTRY, extra, write)?,
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

/// The offset in a ring of the entry of `index`, which runs freely; `size` is a power of two.
pub(super) fn slot(index: u16, size: u16, entry: usize) -> usize {
    usize::from(index & size.wrapping_sub(1)).saturating_mul(entry).saturating_add(ENTRIES)
}

/// The offset in a ring of the other side's event index, behind the last entry.
pub(super) fn event_offset(size: u16, entry: usize) -> usize {
    usize::from(size).saturating_mul(entry).saturating_add(ENTRIES)
}

/// Whether the step from `old` to `new` passed `event`: the driver wants to hear of the entry with
/// that index (virtio 1.2 §2.7.7.2, `vring_need_event`).
pub(super) fn passed(event: u16, old: u16, new: u16) -> bool {
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
                    assert_eq!(passed(event, old, new), wanted, "{event} {old} {new}");
                }
            }
        }
    }
}
