//! Offsets, bits and numbers of virtio-mmio and virtio-blk (virtio 1.2 §4.2.2, §2.1, §2.7, §5.2).

pub(crate) const MAGIC: usize = 0x000;
pub(crate) const VERSION: usize = 0x004;
pub(crate) const DEVICE_ID: usize = 0x008;
pub(crate) const VENDOR_ID: usize = 0x00c;
pub(crate) const DEVICE_FEATURES: usize = 0x010;
pub(crate) const DEVICE_FEATURES_SEL: usize = 0x014;
pub(crate) const DRIVER_FEATURES: usize = 0x020;
pub(crate) const DRIVER_FEATURES_SEL: usize = 0x024;
pub(crate) const QUEUE_SEL: usize = 0x030;
pub(crate) const QUEUE_SIZE_MAX: usize = 0x034;
pub(crate) const QUEUE_SIZE: usize = 0x038;
pub(crate) const QUEUE_READY: usize = 0x044;
pub(crate) const QUEUE_NOTIFY: usize = 0x050;
pub(crate) const INTERRUPT_STATUS: usize = 0x060;
pub(crate) const INTERRUPT_ACK: usize = 0x064;
pub(crate) const STATUS: usize = 0x070;
pub(crate) const QUEUE_DESC: usize = 0x080;
pub(crate) const QUEUE_DRIVER: usize = 0x090;
pub(crate) const QUEUE_DEVICE: usize = 0x0a0;
pub(crate) const SHM_SEL: usize = 0x0ac;
pub(crate) const SHM_LEN_LOW: usize = 0x0b0;
pub(crate) const SHM_LEN_HIGH: usize = 0x0b4;
pub(crate) const SHM_BASE_LOW: usize = 0x0b8;
pub(crate) const SHM_BASE_HIGH: usize = 0x0bc;
pub(crate) const QUEUE_RESET: usize = 0x0c0;
pub(crate) const CONFIG_GENERATION: usize = 0x0fc;
pub(crate) const CONFIG: usize = 0x100;
pub(crate) const WRITEBACK: usize = CONFIG + 32;

pub(crate) const ACKNOWLEDGE: u32 = 1;
pub(crate) const DRIVER: u32 = 2;
pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;
pub(crate) const FAILED: u32 = 128;

/// Feature bits.
pub(crate) const BLK_RO: u32 = 5;
pub(crate) const CONFIG_WCE: u32 = 11;
pub(crate) const DISCARD: u32 = 13;
pub(crate) const WRITE_ZEROES: u32 = 14;
pub(crate) const SECURE_ERASE: u32 = 16;
pub(crate) const LIFETIME: u32 = 15;
pub(crate) const INDIRECT: u32 = 28;
pub(crate) const EVENT_IDX: u32 = 29;
pub(crate) const VERSION_1: u32 = 32;

/// Descriptor flags.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const TABLE: u16 = 4;

/// Request types.
pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const GET_ID: u32 = 8;
pub(crate) const DISCARD_REQUEST: u32 = 11;
pub(crate) const WRITE_ZEROES_REQUEST: u32 = 13;

/// Request status.
pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;
