/// The commands beyond reads, writes and flushes that an image supports. Others are not offered to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Discards; the value is the unit in bytes, a power of two of at least 512.
    pub discard: Option<u32>,
    /// Write zeroes.
    pub write_zeroes: bool,
    /// Zeroed ranges can be deallocated.
    pub write_zeroes_may_unmap: bool,
    /// Secure erases; the value is the unit in bytes, a power of two of at least 512.
    pub secure_erase: Option<u32>,
    /// The storage reports its wear.
    pub lifetime: bool,
}
