//! The hash: FNV-1a of 64 bits.

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// A hash that goes on as bytes come.
pub(crate) struct Fnv(u64);

impl Fnv {
    /// The usual one with seed 0.
    pub(crate) fn new(seed: u64) -> Self {
        Self(OFFSET_BASIS ^ seed)
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}
