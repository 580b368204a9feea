//! What can be wrong with a device or a saved state.

/// A device that no function of virtio-pci can have, or a saved state of another one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The device, or its part of the state, is one that no transport takes.
    #[error(transparent)]
    Device(#[from] virtio_dev::Error),
    /// PCI device IDs have room for device types below 64 (virtio 1.2 §4.1.2).
    #[error("device type {0} has no PCI device ID: those are for types below 64")]
    DeviceType(u32),
    /// The registers, with the configuration space and the notifications of each queue, are longer than
    /// a BAR here may be.
    #[error("{config} bytes of configuration space and {queues} queues do not fit a BAR of 1 MiB")]
    Bar {
        /// The length of the device's configuration space, in bytes.
        config: usize,
        /// The number of queues.
        queues: usize,
    },
    /// A saved state that is not one of this function.
    #[error("the saved state does not fit the function: {0}")]
    State(&'static str),
}
