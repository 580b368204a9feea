//! Device-independent feature bits (virtio 1.2 §6), as masks.

/// `VIRTIO_F_INDIRECT_DESC`: descriptors may refer to indirect tables (§2.7.5.3).
pub const INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`: `used_event` and `avail_event` replace the ring flags (§2.7.10).
pub const EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`: not a legacy device; it is always offered, and every driver must take it.
pub const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_ACCESS_PLATFORM`: addresses go through the platform (an IOMMU, Xen grants).
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// `VIRTIO_F_RING_PACKED`: packed rings; this crate serves split rings only.
pub const RING_PACKED: u64 = 1 << 34;
/// `VIRTIO_F_IN_ORDER`: buffers are used in the order in which they were made available (§2.7.9).
/// The device's to keep: it completes chains in the order in which it popped them.
pub const IN_ORDER: u64 = 1 << 35;
/// `VIRTIO_F_ORDER_PLATFORM`: the platform orders accesses in a way of its own.
pub const ORDER_PLATFORM: u64 = 1 << 36;
/// `VIRTIO_F_NOTIFICATION_DATA`: a kick carries ring positions above the queue's index (§2.9).
pub const NOTIFICATION_DATA: u64 = 1 << 38;
/// `VIRTIO_F_RING_RESET`: one queue can be reset by itself (§2.6.1).
pub const RING_RESET: u64 = 1 << 40;

/// The bits that §2.2 keeps for the rings and the transport, 24 to 49. All other bits are the device
/// type's.
pub const RESERVED: u64 = (1 << 50) - (1 << 24);

/// The [`RESERVED`] features that are a device's to offer, as they say how its queues are served. A
/// [`LiveQueue`](crate::LiveQueue) keeps the first two. The others are the transport's to offer, see
/// [`ControlPlaneBuilder`](crate::ControlPlaneBuilder), or not implemented.
pub const DEVICE: u64 = INDIRECT_DESC | EVENT_IDX | IN_ORDER;
