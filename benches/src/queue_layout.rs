//! Where a driver keeps its queue and requests.

/// Descriptors of a request: header, data, status.
pub(crate) const CHAIN: u16 = 3;
/// Bytes of a descriptor, and of an entry of the used ring (virtio 1.2 §2.7.5, §2.7.8).
const DESCRIPTOR: usize = 16;
const USED_ENTRY: usize = 8;
/// Bytes of a request's header and status together: a cache line.
pub(crate) const REQUEST: usize = 64;
const PAGE: usize = 4096;

/// The memory of one queue, from offset 0: rings, headers and statuses, then the data.
///
/// Each part begins on a page of its own, so that what the driver writes shares no cache line with
/// what the device writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    slots: u16,
    data_len: usize,
}

impl QueueLayout {
    /// Room for `slots` requests in flight with up to `data_len` bytes each, a multiple of 4096.
    ///
    /// # Panics
    /// For no slots, for more than a queue has descriptors, or another `data_len`.
    pub const fn new(slots: u16, data_len: usize) -> Self {
        assert!(slots > 0 && slots <= 32768 / CHAIN, "a queue has at most 32768 descriptors");
        assert!(data_len > 0 && data_len.is_multiple_of(PAGE), "data is made of whole pages");
        Self { slots, data_len }
    }

    /// Requests that can be in flight.
    pub const fn slots(&self) -> u16 {
        self.slots
    }

    /// Data bytes that a request may have.
    pub const fn data_len(&self) -> usize {
        self.data_len
    }

    /// Size of the queue in descriptors: the least that holds every slot's chain.
    pub const fn queue_size(&self) -> u16 {
        (self.slots * CHAIN).next_power_of_two()
    }

    /// Offset of the descriptor table.
    pub const fn desc_table(&self) -> usize {
        0
    }

    /// Offset of the available ring.
    pub const fn avail_ring(&self) -> usize {
        pages(self.queue_size() as usize * DESCRIPTOR)
    }

    /// Offset of the used ring.
    pub const fn used_ring(&self) -> usize {
        self.avail_ring() + pages(6 + self.queue_size() as usize * 2)
    }

    pub(crate) const fn requests(&self) -> usize {
        self.used_ring() + pages(6 + self.queue_size() as usize * USED_ENTRY)
    }

    pub(crate) const fn data(&self) -> usize {
        self.requests() + pages(self.slots as usize * REQUEST)
    }

    /// Bytes of memory in all.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> usize {
        self.data() + self.slots as usize * self.data_len
    }
}

const fn pages(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_follow_each_other_without_overlap() {
        for slots in [1, 2, 32, 128, 1000] {
            let layout = QueueLayout::new(slots, 8192);
            let size = usize::from(layout.queue_size());
            assert!(size >= usize::from(slots) * 3);
            let ends = [
                (layout.desc_table() + size * 16, layout.avail_ring()),
                (layout.avail_ring() + 6 + size * 2, layout.used_ring()),
                (layout.used_ring() + 6 + size * 8, layout.requests()),
                (layout.requests() + usize::from(slots) * 64, layout.data()),
                (layout.data() + usize::from(slots) * 8192, layout.len()),
            ];
            for (end, next) in ends {
                assert!(end <= next && next % 4096 == 0, "{slots}: {end:#x} {next:#x}");
            }
        }
    }
}
