//! PCI class codes of virtio devices.

/// Base class, sub-class and programming interface of a device type, as one value of 24 bits
/// (PCI Code and ID Assignment Specification §1). No driver of virtio depends on it; tools show it.
pub(crate) fn class_code(device_type: u32) -> u32 {
    match device_type {
        // Ethernet controller
        1 => 0x02_00_00,
        // Other mass storage controller: a block device, a file system, persistent memory
        2 | 26 | 27 => 0x01_80_00,
        // Other communication controller: a console
        3 => 0x07_80_00,
        // SCSI controller
        8 => 0x01_00_00,
        // Other display controller
        16 => 0x03_80_00,
        // Other input controller
        18 => 0x09_80_00,
        // Audio device
        25 => 0x04_01_00,
        // Device does not fit in any defined class
        _ => 0xff_00_00,
    }
}
