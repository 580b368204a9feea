//! Where what is in the BAR.

/// The largest BAR, in bytes.
const SIZE_MAX: u32 = 1 << 20;
/// Structures that have pages of their own are aligned to this: a hypervisor maps by it.
const PAGE: u32 = 0x1000;
/// The most vectors that MSI-X has (PCI Local Bus 3.0 §6.8.2.3).
const VECTORS_MAX: u16 = 2048;

pub(crate) const COMMON: u32 = 0;
pub(crate) const COMMON_LEN: u32 = 0x3c;
pub(crate) const ISR: u32 = 0x40;
pub(crate) const ISR_LEN: u32 = 1;
pub(crate) const DEVICE: u32 = 0x100;
/// How far apart the notification addresses of two queues are, in bytes (virtio 1.2 §4.1.4.4). Four, so
/// that each has room for ring positions beside the index.
pub(crate) const NOTIFY_OFF_MULTIPLIER: u32 = 4;
pub(crate) const TABLE_ENTRY: u32 = 16;

/// What an offset in the BAR belongs to; each with the offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    Common(u32),
    Isr,
    Device(u32),
    Notify(u32),
    Table(u32),
    PendingBits(u32),
    Nothing,
}

/// Lengths and offsets of the structures in the BAR, in bytes. The common configuration, the ISR status
/// and the device's configuration share a page; the notifications, the MSI-X table and its pending bits
/// have pages of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) device_len: u32,
    pub(crate) notify: u32,
    pub(crate) notify_len: u32,
    pub(crate) table: u32,
    /// A vector for each queue and one for configuration changes, as far as MSI-X has so many.
    pub(crate) vectors: u16,
    pub(crate) pending_bits: u32,
    /// The size of the BAR, a power of two.
    pub(crate) size: u32,
}

impl Layout {
    /// `None` if that is larger than a BAR may be.
    pub(crate) fn new(config_len: usize, queues: usize) -> Option<Self> {
        let device_len = u32::try_from(config_len).ok()?;
        let queues = u16::try_from(queues).ok()?;
        let vectors = queues.saturating_add(1).min(VECTORS_MAX);
        let notify = DEVICE.checked_add(device_len)?.checked_next_multiple_of(PAGE)?;
        // At least one address, as the structure may not be shorter (§4.1.4.4.1).
        let notify_len = u32::from(queues.max(1)).checked_mul(NOTIFY_OFF_MULTIPLIER)?;
        let table = notify.checked_add(notify_len)?.checked_next_multiple_of(PAGE)?;
        let table_len = u32::from(vectors).checked_mul(TABLE_ENTRY)?;
        let pending_bits = table.checked_add(table_len)?.checked_next_multiple_of(PAGE)?;
        let size = pending_bits.checked_add(PAGE)?.checked_next_power_of_two()?;
        let layout = Self { device_len, notify, notify_len, table, vectors, pending_bits, size };
        (size <= SIZE_MAX).then_some(layout)
    }

    #[inline]
    pub(crate) fn region(&self, offset: u64) -> Region {
        let Ok(offset) = u32::try_from(offset) else {
            return Region::Nothing;
        };
        let within =
            |start: u32, len: u32| offset.checked_sub(start).filter(|&offset| offset < len);
        // What a running guest writes comes first.
        if let Some(offset) = within(self.notify, self.notify_len) {
            return Region::Notify(offset);
        }
        let table_len = u32::from(self.vectors).saturating_mul(TABLE_ENTRY);
        if let Some(offset) = within(self.table, table_len) {
            Region::Table(offset)
        } else if let Some(offset) = within(COMMON, COMMON_LEN) {
            Region::Common(offset)
        } else if offset == ISR {
            Region::Isr
        } else if let Some(offset) = within(DEVICE, self.device_len) {
            Region::Device(offset)
        } else if let Some(offset) = within(self.pending_bits, PAGE) {
            Region::PendingBits(offset)
        } else {
            Region::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_one_queue_has_a_bar_of_four_pages() {
        let layout = Layout::new(60, 1).unwrap();
        assert_eq!((layout.notify, layout.table, layout.pending_bits), (0x1000, 0x2000, 0x3000));
        assert_eq!((layout.size, layout.vectors), (0x4000, 2));
    }

    #[test]
    fn the_structures_do_not_overlap_and_are_aligned() {
        for (config, queues) in [(0, 0), (0, 1), (3840, 1), (3841, 1024), (256, 1025), (60, 65535)]
        {
            let layout = Layout::new(config, queues).unwrap();
            let mut ends = vec![
                (COMMON, COMMON_LEN, 4),
                (ISR, ISR_LEN, 1),
                (DEVICE, layout.device_len, 4),
                (layout.notify, layout.notify_len, PAGE),
                (layout.table, u32::from(layout.vectors) * TABLE_ENTRY, PAGE),
                (layout.pending_bits, u32::from(layout.vectors).div_ceil(64) * 8, PAGE),
            ];
            ends.sort_unstable();
            for pair in ends.windows(2) {
                assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
            }
            for (start, len, align) in ends {
                assert!(start % align == 0 && start + len <= layout.size);
            }
            assert!(layout.size.is_power_of_two());
            assert_eq!(usize::from(layout.vectors), (queues + 1).min(2048));
        }
    }

    #[test]
    fn what_is_larger_than_a_bar_has_no_layout() {
        assert_eq!(Layout::new(1 << 20, 1), None);
        assert_eq!(Layout::new(usize::MAX, 1), None);
        assert_eq!(Layout::new(0, 65536), None);
    }
}
