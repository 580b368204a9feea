//! Requests of a disk's driver (virtio 1.2 §5.2).

use xen_virtio_backend::fake::{FakeDriver, SharedPages, WRITE};

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;

pub const FEATURE_FLUSH: u64 = 1 << 9;
pub const CONFIG_WCE: u64 = 1 << 11;
pub const MQ: u64 = 1 << 12;

pub trait BlockRequests {
    /// A request's header (§5.2.6).
    fn header(&self, kind: u32, sector: u64) -> SharedPages;

    /// An ordinary request, by descriptors 0 to 2: its status and used length. `data` is read into for
    /// `IN`, written from else.
    fn request(&mut self, kind: u32, sector: u64, data: Option<(u64, u32)>) -> (u8, u32);
}

impl BlockRequests for FakeDriver {
    fn header(&self, kind: u32, sector: u64) -> SharedPages {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.filled(&header)
    }

    fn request(&mut self, kind: u32, sector: u64, data: Option<(u64, u32)>) -> (u8, u32) {
        let header = self.header(kind, sector);
        let status = self.filled(&[0xff]);
        let data_flags = if kind == IN { WRITE } else { 0 };
        let mut chain = vec![header.readable()];
        chain.extend(data.map(|(addr, len)| (addr, len, data_flags)));
        chain.push(status.writable());
        let len = self.submit(&chain);
        let [code] = self.get(status.guest);
        for page in [header, status] {
            self.release(page);
        }
        (code, len)
    }
}
