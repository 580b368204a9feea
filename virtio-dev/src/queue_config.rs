//! A queue as the driver set it up.

/// A ready queue: where its rings are and how they work, from the registers.
///
/// The addresses are the driver's own and unchecked: they may have bit 63 set (a Xen grant), and
/// mean what the [`GuestMemory`](vm_memory::GuestMemory) given to
/// [`LiveQueue::new`](crate::LiveQueue::new) makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// The queue's index.
    pub index: u16,
    /// Its size in descriptors, a power of two.
    pub size: u16,
    /// The greatest size that it could have had: how many descriptors an indirect chain may have.
    ///
    /// A driver may chain as many as "the Queue Size of the device" (virtio 1.2 §2.7.5.3.1), and
    /// Linux takes that for what the device offered, also where it had memory for a smaller ring.
    pub size_max: u16,
    /// Address of the descriptor table, 16 bytes a descriptor.
    pub desc_table: u64,
    /// Address of the available ring (the driver area).
    pub avail_ring: u64,
    /// Address of the used ring (the device area).
    pub used_ring: u64,
    /// `VIRTIO_F_EVENT_IDX` is negotiated.
    pub event_idx: bool,
    /// `VIRTIO_F_INDIRECT_DESC` is negotiated.
    pub indirect: bool,
    /// Index of the next available entry to take; 0 but for a resumed device.
    pub next_avail: u16,
    /// Index of the next used entry to write; 0 but for a resumed device.
    pub next_used: u16,
}
