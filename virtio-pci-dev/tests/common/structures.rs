//! The structures of a function, found as a driver finds them: in the list of capabilities.

/// Where a structure is in the BAR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    pub offset: u64,
    pub len: u64,
}

/// What the list of capabilities says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structures {
    /// Offset and ID of each capability, as the list has them.
    pub list: Vec<(u16, u8)>,
    pub common: Structure,
    pub notify: Structure,
    pub notify_off_multiplier: u64,
    pub isr: Structure,
    pub device: Option<Structure>,
    /// Where the window is in the configuration space.
    pub window: u16,
    pub msix: u16,
    pub vectors: u16,
    pub table: u64,
    pub pending_bits: u64,
}

/// Offsets of fields in the common configuration (virtio 1.2 §4.1.4.3).
pub mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    pub const QUEUE_NOTIFY_DATA: u64 = 0x38;
    pub const QUEUE_RESET: u64 = 0x3a;
    /// Every field: its offset, its width, and whether a driver writes it.
    pub const FIELDS: [(u64, usize, bool); 19] = [
        (DEVICE_FEATURE_SELECT, 4, true),
        (DEVICE_FEATURE, 4, false),
        (DRIVER_FEATURE_SELECT, 4, true),
        (DRIVER_FEATURE, 4, true),
        (CONFIG_MSIX_VECTOR, 2, true),
        (NUM_QUEUES, 2, false),
        (DEVICE_STATUS, 1, true),
        (CONFIG_GENERATION, 1, false),
        (QUEUE_SELECT, 2, true),
        (QUEUE_SIZE, 2, true),
        (QUEUE_MSIX_VECTOR, 2, true),
        (QUEUE_ENABLE, 2, true),
        (QUEUE_NOTIFY_OFF, 2, false),
        (QUEUE_DESC, 8, true),
        (QUEUE_DRIVER, 8, true),
        (QUEUE_DEVICE, 8, true),
        (QUEUE_NOTIFY_DATA, 2, false),
        (QUEUE_RESET, 2, true),
        // The structure ends here.
        (0x3c, 0, false),
    ];
}
