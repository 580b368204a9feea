/// Units and alignments of a storage, in bytes (`struct virtio_blk_topology`, virtio 1.2 §5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Topology {
    /// The unit that requests are addressed in: a power of two from 512 to 65536.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "logical_block_size"))]
    pub logical_block_size: u32,
    /// The unit the storage can write without reading first: a power of two, and no smaller than
    /// `logical_block_size`.
    pub physical_block_size: u32,
    /// Where the first physical block that is whole begins: less than `physical_block_size`.
    pub alignment_offset: u32,
    /// The smallest size that requests should have; 0 is not known.
    pub min_io_size: u32,
    /// The size that requests best have; 0 is not known.
    pub opt_io_size: u32,
}

#[cfg(feature = "serde")]
fn logical_block_size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match <u32 as serde::Deserialize>::deserialize(deserializer)? {
        bytes @ 512..=65536 if bytes.is_power_of_two() => Ok(bytes),
        bytes => {
            let message =
                format!("{bytes} bytes are no logical block: a power of two from 512 to 65536");
            Err(serde::de::Error::custom(message))
        }
    }
}

impl Default for Topology {
    /// Sectors of 512 bytes, and nothing else known.
    fn default() -> Self {
        Self {
            logical_block_size: 512,
            physical_block_size: 512,
            alignment_offset: 0,
            min_io_size: 0,
            opt_io_size: 0,
        }
    }
}
