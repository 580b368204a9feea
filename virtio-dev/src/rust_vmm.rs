//! Queues of rust-vmm's crate virtio-queue (feature `virtio-queue`).

use virtio_queue::{Error, Queue, QueueT};
use vm_memory::GuestAddress;

use crate::QueueConfig;

/// A queue for device code that is written for virtio-queue: ready, at the addresses and positions
/// that the driver and the saved state gave.
///
/// The addresses are not looked up: ask [`Queue::is_valid`](QueueT::is_valid) with the guest's memory
/// before the first use, and set `DEVICE_NEEDS_RESET` ([`Interrupt::needs_reset`]) if it says no, or if
/// a later call fails: virtio-queue reports what is wrong with a ring, and leaves it to the device to
/// tell the driver. It takes indirect descriptors whether they were negotiated or not.
///
/// # Errors
/// Of the size or the alignment of a part of the ring. A driver can bring about the latter.
///
/// [`Interrupt::needs_reset`]: crate::Interrupt::needs_reset
impl TryFrom<&QueueConfig> for Queue {
    type Error = Error;

    fn try_from(config: &QueueConfig) -> Result<Self, Error> {
        let mut queue = Self::new(config.size_max)?;
        queue.try_set_size(config.size)?;
        queue.try_set_desc_table_address(GuestAddress(config.desc_table))?;
        queue.try_set_avail_ring_address(GuestAddress(config.avail_ring))?;
        queue.try_set_used_ring_address(GuestAddress(config.used_ring))?;
        queue.set_event_idx(config.event_idx);
        queue.set_next_avail(config.next_avail);
        queue.set_next_used(config.next_used);
        queue.set_ready(true);
        Ok(queue)
    }
}
