//! What goes over the wire (virtio 1.2 §5.2.3 and §5.2.6).

use virtio_blk_dev::Commands;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const GET_LIFETIME: u32 = 10;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;
pub const SECURE_ERASE: u32 = 14;
/// The flag of a range of zeroes.
pub const UNMAP: u32 = 1;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;
/// What the driver leaves where the status goes.
pub const UNWRITTEN: u8 = 0xee;

pub const F_RO: u64 = 1 << 5;
pub const F_FLUSH: u64 = 1 << 9;
pub const F_CONFIG_WCE: u64 = 1 << 11;
pub const F_MQ: u64 = 1 << 12;
pub const F_DISCARD: u64 = 1 << 13;
pub const F_WRITE_ZEROES: u64 = 1 << 14;
pub const F_LIFETIME: u64 = 1 << 15;
pub const F_SECURE_ERASE: u64 = 1 << 16;
pub const F_ZONED: u64 = 1 << 17;
pub const F_INDIRECT: u64 = 1 << 28;
pub const F_EVENT_IDX: u64 = 1 << 29;
pub const F_VERSION_1: u64 = 1 << 32;
pub const F_IN_ORDER: u64 = 1 << 35;
pub const F_RING_RESET: u64 = 1 << 40;
pub const F_ALL: u64 = F_FLUSH | F_INDIRECT | F_EVENT_IDX | F_VERSION_1;

/// Everything an image can do.
pub const COMMANDS: Commands = Commands {
    discard: Some(512),
    write_zeroes: true,
    write_zeroes_may_unmap: true,
    secure_erase: Some(512),
    lifetime: false,
};

/// The data of a discard, write-zeroes or secure-erase request: sector, sectors and flags of each
/// range.
pub fn ranges(list: &[(u64, u32, u32)]) -> Vec<u8> {
    list.iter()
        .flat_map(|(sector, sectors, flags)| {
            [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
        })
        .collect()
}
