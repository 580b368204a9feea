//! The registers of a virtio-mmio device by their offset in the window (virtio 1.2 §4.2.2), as the driver of Linux has
//! them (`virtio_mmio.h`).

/// Reads [`MAGIC_VALUE`].
pub const MAGIC: u64 = 0x000;
/// Reads 2.
pub const VERSION: u64 = 0x004;
/// Reads the device's type (§5).
pub const DEVICE_ID: u64 = 0x008;
/// Reads the half of the device's features that [`DEVICE_FEATURES_SEL`] has selected.
pub const DEVICE_FEATURES: u64 = 0x010;
/// Selects bits 0 to 31 (0) or 32 to 63 (1).
pub const DEVICE_FEATURES_SEL: u64 = 0x014;
/// Takes the half of the driver's features that [`DRIVER_FEATURES_SEL`] has selected.
pub const DRIVER_FEATURES: u64 = 0x020;
/// Selects bits 0 to 31 (0) or 32 to 63 (1).
pub const DRIVER_FEATURES_SEL: u64 = 0x024;
/// Selects the queue that the other queue registers are about.
pub const QUEUE_SEL: u64 = 0x030;
/// Reads the most entries that the queue may have; 0 if there is no such queue.
pub const QUEUE_SIZE_MAX: u64 = 0x034;
/// Takes the number of entries that the queue has.
pub const QUEUE_SIZE: u64 = 0x038;
/// Starts (1) or stops (0) the queue.
pub const QUEUE_READY: u64 = 0x044;
/// Takes the number of a queue that has new available entries.
pub const QUEUE_NOTIFY: u64 = 0x050;
/// Reads why the interrupt was raised: used buffers (1), a changed configuration space (2).
pub const INTERRUPT_STATUS: u64 = 0x060;
/// Takes the bits that the driver has dealt with.
pub const INTERRUPT_ACK: u64 = 0x064;
/// The device status (§2.1). 0 resets the device.
pub const STATUS: u64 = 0x070;
/// Takes the address of the descriptor table, its high half 4 bytes on.
pub const QUEUE_DESC: u64 = 0x080;
/// Takes the address of the available ring, its high half 4 bytes on.
pub const QUEUE_DRIVER: u64 = 0x090;
/// Takes the address of the used ring, its high half 4 bytes on.
pub const QUEUE_DEVICE: u64 = 0x0a0;
/// Reads a number that changes with the configuration space.
pub const CONFIG_GENERATION: u64 = 0x0fc;
/// The first byte of the configuration space.
pub const CONFIG: u64 = 0x100;

/// What [`MAGIC`] reads: "virt".
pub const MAGIC_VALUE: u32 = 0x7472_6976;
