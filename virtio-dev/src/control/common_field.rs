//! The registers that transports share.

/// A register that transports share, whatever its offset and width there: virtio-mmio's control
/// registers (virtio 1.2 §4.2.2), virtio-pci's common configuration (§4.1.4.3).
///
/// A driver may read or write each as its transport says. The control plane itself ignores writes of
/// what only the device changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommonField {
    /// Selects the page of `DeviceFeatures`.
    DeviceFeaturesSel,
    /// 32 offered feature bits, of the selected page.
    DeviceFeatures,
    /// Selects the page of `DriverFeatures`.
    DriverFeaturesSel,
    /// 32 feature bits the driver takes, of the selected page.
    DriverFeatures,
    /// The device status; writing 0 resets the device.
    Status,
    /// Changes whenever the configuration space does.
    ConfigGeneration,
    /// Selects the queue that the next are about.
    QueueSel,
    /// The largest size of the queue, 0 if it is not there.
    QueueSizeMax,
    /// The size the driver uses.
    QueueSize,
    /// 1 makes the queue live, 0 stops it.
    QueueReady,
    /// 1 resets the queue, with `VIRTIO_F_RING_RESET`; reads 1 until it is done.
    QueueReset,
    /// Address of the descriptor table, low half.
    QueueDescLow,
    /// Address of the descriptor table, high half.
    QueueDescHigh,
    /// Address of the available ring (the driver area), low half.
    QueueDriverLow,
    /// Address of the available ring, high half.
    QueueDriverHigh,
    /// Address of the used ring (the device area), low half.
    QueueDeviceLow,
    /// Address of the used ring, high half.
    QueueDeviceHigh,
    /// Selects the shared memory region that the next four are about; over virtio-mmio only.
    ShmSel,
    /// Its length, low half.
    ShmLenLow,
    /// Its length, high half.
    ShmLenHigh,
    /// Its guest physical address, low half.
    ShmBaseLow,
    /// Its guest physical address, high half.
    ShmBaseHigh,
}
