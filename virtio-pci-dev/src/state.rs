//! The state of a function as one plain value.

use virtio_dev::ControlState;

use crate::VectorState;

/// The whole state of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciState {
    /// What every transport has: registers, negotiated features, queues, and the state of the device.
    pub control: ControlState,
    /// The first 256 bytes of the configuration space.
    pub config_space: Vec<u8>,
    /// The MSI-X table and the pending bits.
    pub vectors: Vec<VectorState>,
    /// `config_msix_vector`.
    pub config_vector: u16,
    /// `queue_msix_vector` of each queue.
    pub queue_vectors: Vec<u16>,
}
