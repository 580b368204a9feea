//! The descriptors of a split queue (virtio 1.2 §2.7.5), as a driver writes them.

/// `VIRTQ_DESC_F_NEXT`: the chain goes on.
pub const NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`: the device writes the buffer, rather than reads it.
pub const WRITE: u16 = 2;
/// `VIRTQ_DESC_F_INDIRECT`: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// A descriptor's 16 bytes.
pub fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&addr.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}
