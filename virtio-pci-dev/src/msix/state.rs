//! A vector as a plain value.

/// An entry of the MSI-X table, and its pending bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorState {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// The mask bit of the vector control.
    pub masked: bool,
    /// A message is due, and was not sent as the vector was masked.
    pub pending: bool,
}

impl Default for VectorState {
    /// After a reset: masked.
    fn default() -> Self {
        Self { address: 0, data: 0, masked: true, pending: false }
    }
}
