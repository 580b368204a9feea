/// The commands beyond reads, writes and flushes that an image supports. Others are not offered to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Commands {
    /// Discards; the value is the unit in bytes, a power of two of at least 512.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "unit"))]
    pub discard: Option<u32>,
    /// Write zeroes.
    pub write_zeroes: bool,
    /// Zeroed ranges can be deallocated.
    pub write_zeroes_may_unmap: bool,
    /// Secure erases; the value is the unit in bytes, a power of two of at least 512.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "unit"))]
    pub secure_erase: Option<u32>,
    /// The storage reports its wear.
    pub lifetime: bool,
}

#[cfg(feature = "serde")]
fn unit<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    match <Option<u32> as serde::Deserialize>::deserialize(deserializer)? {
        Some(bytes) if !bytes.is_power_of_two() || bytes < 512 => {
            let message = format!("a unit of {bytes} bytes is not a power of two of at least 512");
            Err(serde::de::Error::custom(message))
        }
        unit => Ok(unit),
    }
}
