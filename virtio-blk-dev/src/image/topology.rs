use super::topology_error::TopologyError;

/// Units and alignments of a storage, in bytes (`struct virtio_blk_topology`, virtio 1.2 §5.2.4). By serde one is read
/// only if it [is consistent](Self::check).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked"))]
pub struct Topology {
    /// The unit that requests are addressed in: a power of two from 512 to 65536.
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

impl Topology {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// One is out of its range.
    pub fn check(&self) -> Result<(), TopologyError> {
        let Self { logical_block_size: block, physical_block_size: physical, .. } = *self;
        if !block.is_power_of_two() || !(512..=65536).contains(&block) {
            return Err(TopologyError::LogicalBlockSize(block));
        }
        if !physical.is_power_of_two() || physical < block {
            return Err(TopologyError::PhysicalBlockSize { physical, block });
        }
        let offset = self.alignment_offset;
        if offset >= physical {
            return Err(TopologyError::AlignmentOffset { offset, physical });
        }
        Ok(())
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

/// The fields of a [`Topology`], as they are read.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    logical_block_size: u32,
    physical_block_size: u32,
    alignment_offset: u32,
    min_io_size: u32,
    opt_io_size: u32,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for Topology {
    type Error = TopologyError;

    fn try_from(unchecked: Unchecked) -> Result<Self, TopologyError> {
        let Unchecked {
            logical_block_size,
            physical_block_size,
            alignment_offset,
            min_io_size,
            opt_io_size,
        } = unchecked;
        let topology = Self {
            logical_block_size,
            physical_block_size,
            alignment_offset,
            min_io_size,
            opt_io_size,
        };
        topology.check()?;
        Ok(topology)
    }
}
